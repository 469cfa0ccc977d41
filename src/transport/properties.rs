//! Properties: the text of one JSON object, brought to one form.
//!
//! The form has its keys sorted at every level and no insignificant white
//! space; of a key that is named twice, the last one counts. So two texts that
//! mean the same are the same payload, whichever way they came. Numbers keep
//! their digits.

use std::borrow::Cow;

use serde_json::Value;

use crate::domain::PropertiesDraft;

/// What is said of JSON that is something else.
const MUST_BE_AN_OBJECT: &str = "must be an object";

/// Text may be so many times longer than the form it is brought to may be:
/// escapes take up to six bytes for one, and white space and keys that are
/// named twice any number. Beyond, it is not read: JSON in memory takes up to a
/// hundred times its text.
const TEXT_FACTOR_MAX: usize = 8;

/// Reads the text of one JSON object whose canonical form may have `bytes_max`
/// bytes, which is not checked here. Empty text is none. The error says what is
/// wrong.
pub(super) fn read(text: &str, bytes_max: usize) -> Result<PropertiesDraft<'static>, String> {
    if text.is_empty() || text == "{}" {
        return Ok(PropertiesDraft::None);
    }
    let text_bytes_max = bytes_max.saturating_mul(TEXT_FACTOR_MAX);
    if text.len() > text_bytes_max {
        return Err(format!("is too long: {} bytes of text, at most {text_bytes_max} are read", text.len()));
    }
    let value = serde_json::from_str(text).map_err(|error| format!("must be the text of a JSON object: {error}"))?;
    match &value {
        Value::Object(object) if object.is_empty() => Ok(PropertiesDraft::None),
        Value::Object(_) => Ok(PropertiesDraft::Canonical(Cow::Owned(value.to_string()))),
        _ => Err(MUST_BE_AN_OBJECT.to_owned()),
    }
}

/// Stored properties as JSON. Without any, and for text that is no object
/// (which somebody else must have stored), an empty object.
pub(super) fn to_value(stored: &str) -> Value {
    match serde_json::from_str(stored) {
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

    fn text_of(draft: PropertiesDraft<'_>) -> String {
        match draft {
            PropertiesDraft::None => String::new(),
            PropertiesDraft::Canonical(text) => text.into_owned(),
        }
    }

    #[test]
    fn the_form_is_canonical() {
        let check = |text: &str, expected: &str| {
            assert_eq!(read(text, MAX).map(text_of).as_deref(), Ok(expected), "{text}");
        };
        check("", "");
        check("{}", "");
        check(" { } ", "");
        check(r#"{"b":1,"a":{"d":[2, 1],"c":null}}"#, r#"{"a":{"c":null,"d":[2,1]},"b":1}"#);
        check(r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
        check(r#"{"a":12345678901234567890.10}"#, r#"{"a":12345678901234567890.10}"#);
        check(r#"{"a":"\u00e9\u0000\/"}"#, "{\"a\":\"é\\u0000/\"}");
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for text in ["1", "null", "[]", "\"a\"", "{", "{\"a\":}", "{} {}", "{\"a\":\"\\ud800\"}", "\u{feff}{}", " "] {
            assert!(read(text, MAX).is_err(), "{text}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(&deep, MAX).is_err());
        assert!(read(&"{\"a\":".repeat(100_000), MAX).is_err());
    }

    #[test]
    fn text_that_is_much_too_long_is_not_read() {
        let numbers = format!("{{\"a\":[{}1]}}", "1,".repeat(100));
        assert!(read(&numbers, 26).unwrap_err().contains("too long"));
        assert!(read(&numbers, 27).is_ok());
    }

    #[test]
    fn stored_properties_are_an_object_whatever_is_stored() {
        let check = |stored: &str, expected: &str| assert_eq!(to_value(stored).to_string(), expected, "{stored}");
        check("", "{}");
        check("{\"a\":1.0}", "{\"a\":1.0}");
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
