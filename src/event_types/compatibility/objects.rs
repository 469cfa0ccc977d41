//! Objects: properties by name, and required properties.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{Comparison, subschema};

pub(super) const KEYWORDS: &[&str] = &[
    "additionalProperties",
    "dependentRequired",
    "maxProperties",
    "minProperties",
    "patternProperties",
    "properties",
    "propertyNames",
    "required",
];

pub(super) fn compare(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    compare_required(comparison, old, new, place);
    compare_least(comparison, old, new, place);
    let (olds, news) = (Members::of(old), Members::of(new));
    for (name, asked) in &news.named {
        comparison.compare(olds.known(name), asked, &format!("{place}.{name}"));
    }
    for (pattern, asked) in &news.patterned {
        let given = olds.patterned.iter().find(|(known, _)| *known == pattern);
        let given = given.map_or(&Value::Bool(true), |(_, given)| given);
        comparison.compare(given, asked, &format!("{place}.({pattern})"));
    }
    if news.others == &Value::Bool(true) {
        return;
    }
    // What the new schema does not name, it judges by `additionalProperties`.
    for (name, given) in &olds.named {
        if !news.named.contains_key(*name) {
            comparison.compare(given, news.others, &format!("{place}.{name}"));
        }
    }
    for (pattern, given) in &olds.patterned {
        if !news.patterned.contains_key(*pattern) {
            comparison.compare(given, news.others, &format!("{place}.({pattern})"));
        }
    }
    comparison.compare(olds.others, news.others, &format!("{place}.*"));
}

/// The members of an object, as a schema has them.
struct Members<'a> {
    named: ByName<'a>,
    patterned: ByName<'a>,
    others: &'a Value,
}

type ByName<'a> = std::collections::BTreeMap<&'a String, &'a Value>;

impl<'a> Members<'a> {
    fn of(keywords: &'a Map<String, Value>) -> Self {
        let by_name = |keyword: &str| -> ByName<'a> {
            keywords.get(keyword).and_then(Value::as_object).into_iter().flatten().collect()
        };
        Self {
            named: by_name("properties"),
            patterned: by_name("patternProperties"),
            others: subschema(keywords, "additionalProperties"),
        }
    }

    /// What is known of a member. (One that no name fits may fit a pattern, and
    /// then is none of the others.)
    fn known(&self, name: &String) -> &'a Value {
        match self.named.get(name) {
            Some(schema) => schema,
            None if self.patterned.is_empty() => self.others,
            None => &Value::Bool(true),
        }
    }
}

fn compare_required(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    let was_required = names(old.get("required"));
    for name in names(new.get("required")).difference(&was_required) {
        comparison.fault(&format!("{place}.{name}"), "is required now");
    }
    let dependent = |keywords: &Map<String, Value>| keywords.get("dependentRequired").cloned().unwrap_or_default();
    let (was_dependent, is_dependent) = (dependent(old), dependent(new));
    for (name, required) in is_dependent.as_object().into_iter().flatten() {
        let was: BTreeSet<String> = names(was_dependent.get(name)).union(&was_required).cloned().collect();
        for also in names(Some(required)).difference(&was) {
            comparison.fault(&format!("{place}.{also}"), format!("is required beside '{name}' now"));
        }
    }
}

fn compare_least(comparison: &mut Comparison, old: &Map<String, Value>, new: &Map<String, Value>, place: &str) {
    comparison.compare_counts((old, new), ("minProperties", "maxProperties"), place);
    let names = subschema(new, "propertyNames");
    comparison.compare(subschema(old, "propertyNames"), names, &format!("{place}.(names)"));
}

fn names(list: Option<&Value>) -> BTreeSet<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
