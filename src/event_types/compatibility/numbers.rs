//! Numbers: bounds and multiples.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Comparison;
use super::types::Types;

pub(super) const KEYWORDS: &[&str] = &["exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"];

pub(super) fn compare(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    for (inclusive, exclusive, inner) in
        [("minimum", "exclusiveMinimum", Ordering::Greater), ("maximum", "exclusiveMaximum", Ordering::Less)]
    {
        let is_implied = |asked: &Value, is_exclusive: bool| {
            // The old bound lies further in, or is the same and excludes as much.
            let by_inclusive = old.get(inclusive).and_then(|given| order(given, asked));
            let by_exclusive = old.get(exclusive).and_then(|given| order(given, asked));
            by_inclusive == Some(inner)
                || by_inclusive == Some(Ordering::Equal) && !is_exclusive
                || by_exclusive == Some(inner)
                || by_exclusive == Some(Ordering::Equal)
        };
        for (keyword, is_exclusive) in [(inclusive, false), (exclusive, true)] {
            if let Some(asked) = new.get(keyword)
                && !is_implied(asked, is_exclusive)
            {
                comparison.fault(place, format!("has a narrower '{keyword}' now: {asked}"));
            }
        }
    }
    if let Some(asked) = new.get("multipleOf")
        && !is_multiple(old, asked)
    {
        comparison.fault(place, format!("has another 'multipleOf' now: {asked}"));
    }
}

/// The order of two numbers, if it is certain: two different texts may be the
/// same number once they are rounded.
fn order(a: &Value, b: &Value) -> Option<Ordering> {
    if a == b {
        return Some(Ordering::Equal);
    }
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return Some(a.cmp(&b));
    }
    a.as_f64()?.partial_cmp(&b.as_f64()?).filter(|order| order.is_ne())
}

fn is_multiple(old: &Map<String, Value>, asked: &Value) -> bool {
    let is_whole = !Types::of(old).includes(Types::NUMBER);
    if is_whole && asked.as_u64() == Some(1) {
        return true;
    }
    old.get("multipleOf").is_some_and(|given| {
        let whole = given.as_u64().zip(asked.as_u64());
        given == asked || whole.is_some_and(|(given, asked)| asked != 0 && given % asked == 0)
    })
}
