//! Properties: JSON text from callers, and from the table.

use crate::domain::PropertiesDraft;
use crate::json;
use crate::transport::properties;

/// The canonical form means the same and is its own canonical form.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    assert!(properties::to_value(text).is_object());
    let Ok(PropertiesDraft::Canonical(canonical)) = properties::read("properties", text, text.len()) else { return };
    let meant = json::parse(text).expect("it was read");
    assert_eq!(properties::to_value(&canonical), meant);
    let Ok(PropertiesDraft::Canonical(again)) = properties::read("properties", &canonical, canonical.len()) else {
        panic!("{canonical}")
    };
    assert_eq!(again, canonical);
}

/// Objects, and what is none.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "{}",
        r#"{"b":1,"a":{"d":[2, 1],"c":null}}"#,
        r#"{"a":1,"a":2,"":{"":[{},[],""]}}"#,
        r#"{"a":12345678901234567890.10,"b":-0.0e+5,"c":1E400}"#,
        r#"{"a":"\u00e9\u0000\/\ud83d\ude00","\n":true}"#,
        r#"{"$serde_json::private::Number":"1"}"#,
        r#"{"a":[{"$serde_json::private::RawValue":"[1]"}]}"#,
        "[1]",
        "null",
        &format!("{{\"a\":{}{}}}", "[".repeat(126), "]".repeat(126)),
        &"{\"a\":".repeat(400),
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
