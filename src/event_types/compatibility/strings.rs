//! Strings: lengths, patterns and formats. Two different patterns are treated as incompatible.

use serde_json::{Map, Value};

use super::Comparison;

pub(super) const KEYWORDS: &[&str] = &["format", "maxLength", "minLength", "pattern"];

pub(super) fn compare(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    comparison.compare_counts((old, new), ("minLength", "maxLength"), place);
    for keyword in ["format", "pattern"] {
        if let Some(asked) = new.get(keyword)
            && old.get(keyword) != Some(asked)
        {
            comparison.fault(place, format!("must satisfy the '{keyword}' {asked} now"));
        }
    }
}
