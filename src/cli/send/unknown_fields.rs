//! Finds fields of a line that are not fields of an event, such as misspelled names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};

/// The known fields.
const FIELDS: [&str; 12] = [
    "event_id",
    "type",
    "event_type",
    "campaign_id",
    "creative_id",
    "source",
    "user_id",
    "occurred_at",
    "timestamp",
    "seq",
    "metadata",
    "properties",
];
/// Fields that other commands write: `received_at` of `events --json`, and `org_id` in files for
/// `load`.
const IGNORED: [&str; 2] = ["received_at", "org_id"];
/// Most names that are kept.
const NAMES_MAX: usize = 20;
/// Most characters of a name that are kept.
const NAME_CHARS_MAX: usize = 64;
/// Similarity at which a name counts as a misspelling, from 0 to 1 (Jaro-Winkler).
const LIKENESS_MIN: f64 = 0.88;

/// Unknown fields by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownFields(BTreeMap<String, FieldOccurrences>);

/// The lines with an unknown field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldOccurrences {
    /// The number of lines.
    pub lines: u64,
    /// The number of the first, from 1.
    pub first: u64,
}

impl UnknownFields {
    /// Records the unknown fields of a line. At most 20 names are kept.
    pub fn note(&mut self, line: u64, names: &[String]) {
        for name in names {
            self.add(name, FieldOccurrences { lines: 1, first: line });
        }
    }

    /// Adds the fields of later lines.
    pub fn absorb(&mut self, later: Self) {
        for (name, lines) in later.0 {
            self.add(&name, lines);
        }
    }

    fn add(&mut self, name: &str, more: FieldOccurrences) {
        if let Some(lines) = self.0.get_mut(name) {
            lines.lines += more.lines;
        } else if self.0.len() < NAMES_MAX {
            self.0.insert(name.to_owned(), more);
        }
    }

    /// By name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FieldOccurrences)> {
        self.0.iter().map(|(name, lines)| (name.as_str(), *lines))
    }
}

/// The names of unknown fields of a line. None if the line is not a JSON object.
pub fn of(text: &[u8]) -> Vec<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    deserializer.deserialize_map(FieldNamesVisitor).unwrap_or_default()
}

/// The field that a misspelled name probably means.
pub fn meant(name: &str) -> Option<&'static str> {
    let likeness = |field: &'static str| (strsim::jaro_winkler(&name.to_lowercase(), field), field);
    let best = FIELDS.into_iter().map(likeness).max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN).map(|(_, field)| field)
}

/// Collects names and ignores values.
struct FieldNamesVisitor;

impl<'de> Visitor<'de> for FieldNamesVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut unknown = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            map.next_value::<IgnoredAny>()?;
            if !FIELDS.contains(&&*name) && !IGNORED.contains(&&*name) && unknown.len() < NAMES_MAX {
                unknown.push(name.chars().take(NAME_CHARS_MAX).collect());
            }
        }
        Ok(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_that_no_event_has_are_unknown() {
        assert_eq!(of(br#"{"event_id":"e","org_id":"o","received_at":"x","metadata":{"any":[1]}}"#), [""; 0]);
        assert_eq!(of(br#"{"campaing_id":"c","event_id":"e","x":{"y":[1,{}]}}"#), ["campaing_id", "x"]);
        assert_eq!(of(b"[1]"), [""; 0]);
        assert_eq!(of(b"{\"a\""), [""; 0]);
    }

    #[test]
    fn a_slip_is_told_from_another_field() {
        let check = |name: &str, expected: Option<&str>| assert_eq!(meant(name), expected, "{name}");
        check("campaing_id", Some("campaign_id"));
        check("campaignId", Some("campaign_id"));
        check("userid", Some("user_id"));
        check("occured_at", Some("occurred_at"));
        check("Type", Some("type"));
        check("price", None);
        check("page_url", None);
    }

    #[test]
    fn names_are_counted_within_a_bound() {
        let mut fields = UnknownFields::default();
        fields.note(3, &["x".to_owned()]);
        let mut later = UnknownFields::default();
        later.note(7, &["x".to_owned(), "y".to_owned()]);
        fields.absorb(later);
        let counted: Vec<_> = fields.iter().collect();
        assert_eq!(
            counted,
            [("x", FieldOccurrences { lines: 2, first: 3 }), ("y", FieldOccurrences { lines: 1, first: 7 })]
        );
        fields.note(9, &(0..100).map(|n| n.to_string()).collect::<Vec<_>>());
        assert_eq!(fields.iter().count(), NAMES_MAX);
    }
}
