//! Parses JSON texts from callers: properties, schemas, claims.
//!
//! Only this module turns a text into a [`Value`]. The features of `serde_json` that keep numbers exact
//! (`arbitrary_precision`) and texts as they are (`raw_value`) give a meaning to the keys
//! `$serde_json::private::Number` and `$serde_json::private::RawValue` whenever a `Value` is
//! *deserialized*: an object with such a key would become a number, or whatever its text contains. Callers
//! may use any key, so this module builds values itself. Serializing a `Value`, and deserializing
//! other types or a `RawValue`, is not affected.
//!
//! All ways in (REST, gRPC, files) parse a text in the same way: the same nesting, the same byte-order
//! mark, the same of two equal keys.

mod number;
mod reader;

use serde_json::Value;

pub(crate) use number::NUMBER_EXPECTED;

/// Deepest nesting of objects and lists.
pub(crate) const DEPTH_MAX: usize = 127;

/// Longest place that is named in an error, in characters: it is made of keys
/// that a caller chose.
const PLACE_CHARS_MAX: usize = 200;

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at byte {at}")]
pub(crate) struct JsonError {
    message: &'static str,
    /// From 1.
    at: usize,
}

/// Reads one JSON text (RFC 8259). Numbers keep their digits, every key is only
/// a key, and of two equal keys the last one counts. A byte-order mark in front
/// is ignored.
///
/// # Errors
/// The text is not JSON, or is nested deeper than [`DEPTH_MAX`].
pub(crate) fn parse(text: &str) -> Result<Value, JsonError> {
    reader::read(without_bom(text))
}

/// A text without the byte-order mark that some editors and exporters put in
/// front (RFC 8259, 8.1: a reader may ignore it).
pub(crate) fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// The places of numbers that ClickHouse's JSON functions cannot read, such as
/// `.items.0.price`; at most `places_max`.
///
/// One such number makes every `JSONExtract…` of its text empty. They read
/// whole numbers from -2^63 to 2^64 - 1, and those with a fraction or an
/// exponent as doubles, which must be finite.
pub(crate) fn unreadable_numbers(value: &Value, places_max: usize) -> Vec<String> {
    let mut places = Vec::new();
    let mut path = Vec::new();
    collect(value, &mut path, places_max, &mut places);
    places
}

fn collect<'a>(value: &'a Value, path: &mut Vec<Step<'a>>, places_max: usize, places: &mut Vec<String>) {
    if places.len() >= places_max {
        return;
    }
    match value {
        Value::Number(number) if !number::is_readable(number.as_str()) => places.push(place(path)),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Step::Index(index));
                collect(item, path, places_max, places);
                path.pop();
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                path.push(Step::Key(key));
                collect(member, path, places_max, places);
                path.pop();
            }
        }
        _ => {}
    }
}

/// One step down into a value.
enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

fn place(path: &[Step<'_>]) -> String {
    let whole: String = path
        .iter()
        .map(|step| match step {
            Step::Key(key) => format!(".{key}"),
            Step::Index(index) => format!(".{index}"),
        })
        .collect();
    let mut short: String = whole.chars().take(PLACE_CHARS_MAX).collect();
    if short.len() < whole.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn written(text: &str) -> Option<String> {
        parse(text).ok().map(|value| value.to_string())
    }

    /// Keys to which `serde_json` gives a meaning.
    const PRIVATE: [&str; 2] = ["$serde_json::private::Number", "$serde_json::private::RawValue"];

    #[test]
    fn private_keys_are_only_keys_at_every_depth() {
        for key in PRIVATE {
            for held in ["\"1\"", "\"[1]\"", "\"{\\\"a\\\":1}\"", "\"not a number\"", "1", "null", "{}"] {
                let mut text = format!("{{\"{key}\":{held}}}");
                for depth in 0..6 {
                    assert_eq!(written(&text).as_deref(), Some(&*text), "depth {depth}");
                    let value = parse(&text).expect("JSON");
                    assert!(value.is_object() || value.is_array(), "{text}");
                    text = if depth % 2 == 0 { format!("[{text}]") } else { format!("{{\"a\":{text}}}") };
                }
            }
            let escaped = format!("{{\"\\u0024{}\":\"1\"}}", &key[1..]);
            assert_eq!(written(&escaped), Some(format!("{{\"{key}\":\"1\"}}")));
        }
    }

    #[test]
    fn texts_are_read_as_the_standard_has_them() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(written(text).as_deref(), expected, "{text}");
        check("{\"b\":1,\"a\":[true,false,null,\"\"]}", Some("{\"a\":[true,false,null,\"\"],\"b\":1}"));
        check(" \t\r\n1 ", Some("1"));
        check("\u{feff}{}", Some("{}"));
        check("\"\\u00e9\\ud83d\\ude00\\/\\u0000\"", Some("\"é😀/\\u0000\""));
        check("{\"a\":1,\"a\":2}", Some("{\"a\":2}"));
        check("12345678901234567890123.4500e-1", Some("12345678901234567890123.4500e-1"));
        for text in [
            "",
            " ",
            "{",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "0x1",
            "NaN",
            "Infinity",
            "nul",
            "truex",
            "{} {}",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\x\"",
            "\"a\nb\"",
            "\"a",
            "\"\\",
            "\u{feff}\u{feff}1",
            "1\u{feff}",
            "[1 2]",
            "{\"a\" 1}",
            "{\"a\":}",
            "{,}",
            "--1",
            "1e+",
            "\u{a0}1",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        assert!(parse(&nested(DEPTH_MAX + 1)).is_err_and(|error| error.to_string().contains("127")));
        assert!(parse(&"{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn numbers_that_cannot_be_read_are_found_by_place() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(unreadable_numbers(&parse(text).expect("JSON"), 3), expected, "{text}");
        };
        check(
            "{\"a\":[1,{\"b\":18446744073709551616}],\"c\":1e400,\"d\":-9223372036854775809}",
            &[".a.1.b", ".c", ".d"],
        );
        check("{\"a\":[1e400,1e400,1e400,1e400]}", &[".a.0", ".a.1", ".a.2"]);
        check("{\"a\":18446744073709551615,\"b\":-9223372036854775808,\"c\":\"1e400\"}", &[]);
        let long = "x".repeat(300);
        let places = unreadable_numbers(&json!({ long: parse("1e999").expect("a number") }), 1);
        assert_eq!(places[0].chars().count(), PLACE_CHARS_MAX + 1);
    }

    /// Any JSON, as text.
    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::String),
        ];
        let key = prop_oneof![prop::sample::select(PRIVATE.to_vec()).prop_map(str::to_owned), "\\PC{0,4}"];
        leaf.prop_recursive(5, 64, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(key.clone(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in value()) {
            prop_assert_eq!(parse(&value.to_string()), Ok(value));
        }

        #[test]
        fn it_reads_what_serde_json_reads(text in "[{}\\[\\],:\"\\\\a-fnrtu0-9.eE+ \n\t-]{0,24}") {
            // No text of these letters has a private key.
            prop_assert_eq!(parse(&text).ok(), serde_json::from_str(&text).ok(), "{}", text);
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
