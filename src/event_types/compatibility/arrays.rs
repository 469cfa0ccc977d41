//! Arrays: items by position, and their number.

use serde_json::{Map, Value};

use super::{Comparison, count, subschema};

pub(super) const KEYWORDS: &[&str] = &["items", "maxItems", "minItems", "prefixItems", "uniqueItems"];

pub(super) fn compare(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    comparison.compare_counts((old, new), ("minItems", "maxItems"), place);
    let items_max = count(old, "maxItems");
    let are_unique = |keywords: &Map<String, Value>| keywords.get("uniqueItems") == Some(&Value::Bool(true));
    if are_unique(new) && !are_unique(old) && items_max.is_none_or(|max| max > 1.0) {
        comparison.fault(place, "must have different items now");
    }
    // Beyond the longer prefix, all items are alike.
    let alike_from = prefix(old).len().max(prefix(new).len());
    for position in 0..=alike_from {
        #[allow(clippy::cast_precision_loss, reason = "a schema has no so many")]
        if items_max.is_some_and(|max| position as f64 >= max) {
            break;
        }
        let name = if position == alike_from { "*".to_owned() } else { position.to_string() };
        comparison.compare(item(old, position), item(new, position), &format!("{place}.{name}"));
    }
}

fn prefix(keywords: &Map<String, Value>) -> &[Value] {
    keywords.get("prefixItems").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn item(keywords: &Map<String, Value>, position: usize) -> &Value {
    prefix(keywords).get(position).unwrap_or_else(|| subschema(keywords, "items"))
}
