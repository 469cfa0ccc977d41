//! Parses JSON objects into fields, and collects every invalid one.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::failure::Failure;
use crate::domain::{FieldFault, Fields, GivenValue};

/// Ignored before a body, as RFC 8259, 8.1 allows.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads one JSON object. Its fields are not judged yet.
///
/// # Errors
/// `INVALID_JSON` for what is no JSON, `VALIDATION_ERROR` for JSON that is no
/// object.
pub(super) fn read_object(bytes: &[u8]) -> Result<Fields, Failure> {
    let text = str::from_utf8(bytes).map_err(|_| Failure::invalid_json("must be UTF-8".to_owned()))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let invalid = |error: serde_json::Error| Failure::invalid_json(error.to_string());
    serde_json::from_str::<IgnoredAny>(text).map_err(invalid)?;
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(Failure::invalid(vec![FieldFault::new("body", "must be a JSON object")]));
    }
    // Names that are no Unicode are found here only.
    serde_json::Deserializer::from_str(text).deserialize_map(FieldsVisitor).map_err(invalid)
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
            fields.add(&name, given(value.get()));
        }
        Ok(fields)
    }
}

/// A string with half of a surrogate pair is none.
fn given(json: &str) -> GivenValue {
    match json.as_bytes().first() {
        Some(b'"') => serde_json::from_str(json).map_or(GivenValue::Other, GivenValue::Text),
        Some(b'n') => GivenValue::Null,
        _ => GivenValue::Other,
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse as _;
    use proptest::prelude::*;

    use super::*;

    fn values(json: &str) -> Vec<(String, GivenValue)> {
        let fields = read_object(json.as_bytes()).unwrap();
        fields.values().map(|(name, value)| (name.to_owned(), value.clone())).collect()
    }

    #[test]
    fn values_are_told_apart() {
        let text = |text: &str| GivenValue::Text(text.to_owned());
        assert_eq!(values(" {} \n"), []);
        assert_eq!(values("\u{feff}{}"), []);
        assert_eq!(
            values(r#"{"f":"\ud800","a":"x\u00e9","b":null,"c":1e999,"d":{"a":["]"]},"e":true}"#),
            [
                ("a".to_owned(), text("xé")),
                ("b".to_owned(), GivenValue::Null),
                ("c".to_owned(), GivenValue::Other),
                ("d".to_owned(), GivenValue::Other),
                ("e".to_owned(), GivenValue::Other),
                ("f".to_owned(), GivenValue::Other),
            ]
        );
        // What serde_json calls its own numbers and raw values are names like others.
        for name in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
            assert_eq!(values(&format!(r#"{{"{name}":"1"}}"#)), [(name.to_owned(), text("1"))]);
        }
    }

    #[test]
    fn what_is_no_json_is_told_from_what_is_no_object() {
        let check = |json: &[u8], expected: &str| {
            let failure = read_object(json).unwrap_err();
            assert!(format!("{failure:?}").contains(expected), "{failure:?}");
            assert_eq!(failure.into_response().status(), 400);
        };
        for json in [
            "",
            " ",
            "{",
            "{]",
            "{} {}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\"}",
            "nul",
            "\u{feff}\u{feff}{}",
            "{\"\\ud800\":1}",
        ] {
            check(json.as_bytes(), "INVALID_JSON");
        }
        check(b"{\"a\":\"\xff\"}", "INVALID_JSON");
        for json in [
            "[]",
            "[{}]",
            "null",
            "1",
            "\"{}\"",
            "true",
            &"[".repeat(100).chars().chain("]".repeat(100).chars()).collect::<String>(),
        ] {
            check(json.as_bytes(), "VALIDATION_ERROR");
        }
    }

    proptest! {
        #[test]
        fn no_body_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60), near in "[{}\\[\\]\":,a\\\\u0-9nulltrue ]{0,40}") {
            let _ = (read_object(&bytes), read_object(near.as_bytes()));
        }
    }
}
