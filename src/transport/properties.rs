//! Properties: the text of one JSON object in canonical form.
//!
//! The form has sorted keys at every level and no insignificant white space; of a key that occurs twice,
//! the last one counts. Two texts with the same meaning are therefore the same payload, through any
//! protocol. Numbers keep their digits (`1` and `1.0` are two payloads), and numbers that ClickHouse's
//! JSON functions cannot read are refused: one of them would hide all other properties of its event from
//! analysts. See `docs/data-contract.md`.

use std::borrow::Cow;

use serde_json::Value;

use crate::domain::{FieldError, PropertiesDraft};
use crate::json;

/// What is said of JSON that is something else.
const MUST_BE_AN_OBJECT: &str = "must be an object";

/// Text may be so many times longer than the form it is brought to may be:
/// escapes take up to six bytes for one, and white space and keys that are
/// named twice any number. Beyond, it is not read: JSON in memory takes up to a
/// hundred times its text.
const TEXT_FACTOR_MAX: usize = 8;

/// Most numbers of one event that are named when they cannot be read.
const NUMBERS_NAMED_MAX: usize = 10;

/// Reads the text of one JSON object whose canonical form may have `bytes_max`
/// bytes, which is not checked here. Empty text is none.
///
/// # Errors
/// What is wrong, by place: `field` itself, or a number within it.
pub(super) fn read(field: &str, text: &str, bytes_max: usize) -> Result<PropertiesDraft<'static>, Vec<FieldError>> {
    if matches!(text, "" | "{}") {
        return Ok(PropertiesDraft::None);
    }
    let wrong = |message: String| Err(vec![FieldError::new(field, message)]);
    let text_bytes_max = bytes_max.saturating_mul(TEXT_FACTOR_MAX);
    if text.len() > text_bytes_max {
        return wrong(format!("is too long: {} bytes of text, at most {text_bytes_max} are read", text.len()));
    }
    let value = match json::parse(text) {
        Ok(value) => value,
        Err(error) => return wrong(format!("must be the text of a JSON object: {error}")),
    };
    of_value(field, &value)
}

/// The canonical form of JSON that has been read.
///
/// # Errors
/// Those of [`read`].
pub(super) fn of_value(field: &str, value: &Value) -> Result<PropertiesDraft<'static>, Vec<FieldError>> {
    match value {
        Value::Object(object) if object.is_empty() => Ok(PropertiesDraft::None),
        Value::Object(_) => {
            let unreadable = json::unreadable_numbers(value, NUMBERS_NAMED_MAX);
            if unreadable.is_empty() {
                return Ok(PropertiesDraft::Canonical(Cow::Owned(value.to_string())));
            }
            let named = |place: String| FieldError::new(format!("{field}{place}"), json::NUMBER_EXPECTED);
            Err(unreadable.into_iter().map(named).collect())
        }
        _ => Err(vec![FieldError::new(field, MUST_BE_AN_OBJECT)]),
    }
}

/// Stored properties as JSON. Without any, and for text that is no object
/// (which somebody else must have stored), an empty object.
pub(super) fn to_value(stored: &str) -> Value {
    match json::parse(stored) {
        Ok(value @ Value::Object(_)) => value,
        _ => Value::Object(serde_json::Map::new()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// More than any text here.
    const MAX: usize = 1 << 20;

    /// The canonical form, or the fields at fault.
    fn read(text: &str, bytes_max: usize) -> Result<PropertiesDraft<'static>, Vec<String>> {
        let read = super::read("properties", text, bytes_max);
        read.map_err(|errors| errors.into_iter().map(|error| format!("{} {}", error.field, error.message)).collect())
    }

    fn text_of(draft: PropertiesDraft<'_>) -> String {
        match draft {
            PropertiesDraft::None => String::new(),
            PropertiesDraft::Canonical(text) => text.into_owned(),
        }
    }

    #[test]
    fn the_form_is_canonical() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, MAX).map(text_of), Ok(expected.to_owned()), "{text}");
        };
        check("", "");
        check("{}", "");
        check(" { } ", "");
        check(r#"{"b":1,"a":{"d":[2, 1],"c":null}}"#, r#"{"a":{"c":null,"d":[2,1]},"b":1}"#);
        check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
        check(r#"{"a":12345678901234567890.10}"#, r#"{"a":12345678901234567890.10}"#);
        check("\u{feff}{\"a\":1}", r#"{"a":1}"#);
        check(
            r#"{"$serde_json::private::RawValue":"[1]","a":{"$serde_json::private::Number":"1"}}"#,
            r#"{"$serde_json::private::RawValue":"[1]","a":{"$serde_json::private::Number":"1"}}"#,
        );
        check(r#"{"a":"\u00e9\u0000\/"}"#, "{\"a\":\"é\\u0000/\"}");
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["1", "null", "[]", "\"a\"", "{", "{\"a\":}", "{} {}", "{\"a\":\"\\ud800\"}", "\u{feff}[]", " "] {
            assert!(read(text, MAX).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep, MAX).is_err());
        assert!(read(&"{\"a\":".repeat(100_000), MAX).is_err());
    }

    #[test]
    fn text_that_is_much_too_long_is_not_read() {
        let numbers = format!("{{\"a\":[{}1]}}", "1,".repeat(100));
        assert!(read(&numbers, 26).unwrap_err()[0].contains("too long"));
        assert!(read(&numbers, 27).is_ok());
    }

    #[test]
    fn numbers_that_no_query_could_read_are_refused_by_place() {
        let check = |text: &str, expected: &[&str]| {
            let refused = read(text, MAX).unwrap_err();
            let fields: Vec<&str> = refused.iter().map(|error| error.split_once(' ').unwrap().0).collect();
            assert_eq!(fields, expected, "{text}");
        };
        check(r#"{"a":18446744073709551616}"#, &["properties.a"]);
        check(r#"{"a":[{"b":1e400}],"c":-9223372036854775809,"d":1}"#, &["properties.a.0.b", "properties.c"]);
        assert_eq!(read(&format!("{{\"a\":[{}]}}", ["1e999"; 50].join(",")), MAX).unwrap_err().len(), 10);
    }

    #[test]
    fn stored_properties_are_an_object_whatever_is_stored() {
        let check = |stored: &str, expected: &str| assert_eq!(to_value(stored).to_string(), expected, "{stored}");
        check("", "{}");
        check("{\"a\":1.0}", "{\"a\":1.0}");
        // From before such numbers were refused.
        check("{\"a\":1e+400}", "{\"a\":1e+400}");
        check(r#"{"$serde_json::private::RawValue":"[1]"}"#, r#"{"$serde_json::private::RawValue":"[1]"}"#);
        check("[1]", "{}");
        check("not JSON", "{}");
    }

    proptest! {
        #[test]
        fn what_was_canonical_stays_so(text in "[{}\\[\\],:\"a-c0-9.eE+ -]{0,60}") {
            if let Ok(draft) = read(&text, MAX) {
                let once = text_of(draft);
                prop_assert_eq!(read(&once, MAX).map(text_of), Ok(once));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = (read(&text, MAX), to_value(&text));
        }
    }
}
