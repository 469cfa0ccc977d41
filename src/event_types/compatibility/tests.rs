//! Tests that reported compatibility is right, and that known compatible changes are recognized.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event_types::schema::Schema;

fn faults(old: &Value, new: &Value) -> Vec<FieldError> {
    super::faults(old, new, Instant::now() + std::time::Duration::from_secs(600))
}

/// Nothing that costs too much is called compatible, and it is said what to do.
#[test]
fn what_costs_too_much_is_not_decided() {
    let branches = |from: usize| {
        let constant = |n: usize| json!({"properties": {"x": {"const": n}, "y": {"enum": [n, n + 1]}}});
        json!({"items": {"anyOf": (from..from + 600).map(constant).collect::<Vec<_>>()}})
    };
    let (old, new) = (expanded(&of(branches(0))), expanded(&of(branches(1))));
    let begin = Instant::now();
    let found = super::faults(&old, &new, begin + std::time::Duration::from_millis(300));
    assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{:?}", begin.elapsed());
    assert!(found[0].message.contains("force"), "{found:?}");
    assert_eq!(super::faults(&old, &old, Instant::now()).len(), 1, "no time at all");
}

fn expanded(schema: &Value) -> Value {
    Schema::parse(&schema.to_string()).unwrap().expanded().clone()
}

/// The places that are named.
fn check(old: Value, new: Value, expected: &[&str]) {
    let faults = faults(&expanded(&old), &expanded(&new));
    let places: Vec<&str> = faults.iter().map(|fault| &*fault.field).collect();
    assert_eq!(places, expected, "{old} to {new}: {faults:?}");
}

fn of(property: Value) -> Value {
    json!({"properties": {"a": property}})
}

/// For one property.
fn check_property(old: Value, new: Value, is_compatible: bool) {
    let named = !faults(&expanded(&of(old.clone())), &expanded(&of(new.clone()))).is_empty();
    assert_eq!(named, !is_compatible, "{old} to {new}");
}

#[test]
fn what_is_known_to_be_compatible_is_called_so() {
    for (old, new) in [
        (json!({"type": "integer"}), json!({"type": "number"})),
        (json!({"type": "string"}), json!({"type": ["string", "null"]})),
        (json!({"type": "string"}), json!(true)),
        (json!(false), json!({"type": "string"})),
        (json!({"minimum": 1}), json!({"minimum": 0})),
        (json!({"minimum": 1}), json!({"exclusiveMinimum": 0})),
        (json!({"exclusiveMaximum": 5}), json!({"maximum": 5})),
        (json!({"multipleOf": 6}), json!({"multipleOf": 3})),
        (json!({"type": "integer"}), json!({"type": "integer", "multipleOf": 1})),
        (json!({"maxLength": 5}), json!({"maxLength": 6})),
        (json!({"pattern": "^a"}), json!({"pattern": "^a"})),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["c", "b", "a"]})),
        (json!({"enum": ["a", "b"]}), json!({"type": "string", "maxLength": 1})),
        (json!({"const": 5}), json!({"minimum": 5})),
        (json!({"type": "boolean"}), json!({"enum": [true, false]})),
        (json!({"type": "string"}), json!({"type": "string", "minimum": 5})),
        (json!({"items": {"type": "integer"}}), json!({"items": {"type": "number"}})),
        (json!({"prefixItems": [{"const": 1}], "maxItems": 1}), json!({"items": {"type": "integer"}})),
        (json!({"maxItems": 1}), json!({"uniqueItems": true})),
        (json!({"required": ["a", "b"]}), json!({"required": ["b"]})),
        (json!({"required": ["a", "b"]}), json!({"dependentRequired": {"c": ["a"]}})),
        (json!({"additionalProperties": false}), json!({"properties": {"b": {"type": "string"}}})),
        (
            json!({"properties": {"b": {"const": 1}}, "additionalProperties": false}),
            json!({"additionalProperties": {"type": "integer"}}),
        ),
        (json!({"patternProperties": {"^x": {"const": 1}}}), json!({"patternProperties": {"^x": {"type": "integer"}}})),
        (json!({"type": "string"}), json!({"anyOf": [{"type": "integer"}, {"type": "string"}]})),
        (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), json!({"type": ["number", "string"]})),
        (json!({"not": {"type": "string"}}), json!({"not": {"type": "string"}})),
        (json!({"if": {"const": 1}, "then": false}), json!({"if": {"const": 1}, "then": false})),
        (json!({"type": "string", "x-unit": "EUR"}), json!({"type": "string"})),
        (json!({"allOf": [{"minimum": 3}, {"maximum": 5}]}), json!({"minimum": 2, "allOf": [{"maximum": 5}]})),
    ] {
        check_property(old, new, true);
    }
}

#[test]
fn what_may_refuse_more_is_never_called_compatible() {
    for (old, new) in [
        (json!(true), json!({"type": "string"})),
        (json!({"type": "number"}), json!({"type": "integer"})),
        (json!({"type": ["string", "null"]}), json!({"type": "string"})),
        (json!({"type": "string"}), json!(false)),
        (json!({"minimum": 0}), json!({"minimum": 1})),
        (json!({"minimum": 0}), json!({"exclusiveMinimum": 0})),
        (json!({"minimum": 1}), json!({"minimum": 1.000_000_000_000_000_1})),
        (json!({"multipleOf": 3}), json!({"multipleOf": 6})),
        (json!({"type": "number"}), json!({"multipleOf": 1})),
        (json!({}), json!({"maxLength": 6})),
        (json!({"pattern": "^a"}), json!({"pattern": "^ab"})),
        (json!({"type": "string"}), json!({"format": "uuid"})),
        (json!({"enum": ["a", "b"]}), json!({"enum": ["a"]})),
        (json!({"type": "string"}), json!({"enum": ["a"]})),
        (json!({"items": {"type": "number"}}), json!({"items": {"type": "integer"}})),
        (json!({"prefixItems": [{"const": 1}]}), json!({"items": {"type": "integer"}})),
        (json!({}), json!({"uniqueItems": true})),
        (json!({}), json!({"required": ["b"]})),
        (json!({}), json!({"dependentRequired": {"c": ["a"]}})),
        (json!({}), json!({"properties": {"b": {"type": "string"}}})),
        (json!({"properties": {"b": true}}), json!({"additionalProperties": false})),
        (json!({"patternProperties": {"^x": true}}), json!({"properties": {"xa": {"type": "string"}}})),
        (
            json!({"patternProperties": {"^x": true}, "additionalProperties": false}),
            json!({"additionalProperties": false}),
        ),
        (json!({}), json!({"patternProperties": {"^x": {"type": "integer"}}})),
        (json!({}), json!({"propertyNames": {"maxLength": 3}})),
        (json!({"not": {"type": "integer"}}), json!({"not": {"type": "number"}})),
        (json!({"if": {"const": 1}, "then": false}), json!({"if": {"const": 2}, "then": false})),
        (json!({"contains": {"const": 1}}), json!({"contains": {"const": 1}, "minContains": 2})),
        (json!({"oneOf": [{"minimum": 3}]}), json!({"oneOf": [{"minimum": 3}, {"maximum": 5}]})),
        (json!({}), json!({"x-unknown": 1})),
        (json!({"x-unknown": 2}), json!({"x-unknown": 1})),
        (json!({"minimum": 3}), json!({"allOf": [{"minimum": 2}, {"maximum": 5}]})),
    ] {
        check_property(old, new, false);
    }
}

#[test]
fn every_place_is_named() {
    let old = json!({
        "required": ["sku"], "$defs": {"money": {"type": "object", "properties": {"amount": {"type": "number"}}}},
        "properties": {"sku": {"type": "string"}, "price": {"$ref": "#/$defs/money"}, "tags": {"items": {"type": "string"}}},
    });
    check(json!({}), json!({"type": "object"}), &[]);
    check(old.clone(), old.clone(), &[]);
    let mut new = old.clone();
    new["required"] = json!(["sku", "price"]);
    new["$defs"]["money"]["properties"]["amount"] = json!({"type": "number", "minimum": 0});
    new["properties"]["tags"]["items"] = json!({"type": "string", "maxLength": 10});
    new["additionalProperties"] = json!(false);
    let places = ["properties.price", "properties.price.amount", "properties.tags.*", "properties.*"];
    check(old, new, &places);
}

#[test]
fn what_is_too_complex_is_not_called_compatible() {
    let wide = |n: u32| (0..200).map(|k| json!({"minimum": n + k, "title": "a"})).collect::<Vec<_>>();
    let old = json!({"allOf": wide(1_000)});
    let new = json!({"allOf": [{"anyOf": wide(2_000)}, {"anyOf": wide(3_000)}]});
    check_property(old, new, false);
}

/// Schemas of a small world, so that pairs often meet.
fn schemas() -> impl Strategy<Value = Value> {
    let number = || (-3_i32..4).prop_map(|n| json!(n));
    let value = || prop_oneof![number(), Just(json!("a")), Just(json!("ab")), Just(json!(null)), Just(json!(1.5))];
    let kind = || prop::sample::select(vec!["integer", "number", "string", "array", "object", "null", "boolean"]);
    let keyword = prop_oneof![
        kind().prop_map(|kind| json!({"type": kind})),
        prop::collection::btree_set(kind(), 1..4).prop_map(|kinds| json!({"type": kinds})),
        (prop::sample::select(vec!["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]), number())
            .prop_map(|(keyword, bound)| json!({keyword: bound})),
        (1_u32..5).prop_map(|n| json!({"multipleOf": n})),
        (prop::sample::select(vec!["minLength", "maxLength", "minItems", "maxItems", "maxProperties"]), 0_u32..3)
            .prop_map(|(keyword, n)| json!({keyword: n})),
        Just(json!({"pattern": "^a"})),
        Just(json!({"uniqueItems": true})),
        prop::collection::btree_set(prop::sample::select(vec!["a", "b"]), 0..3)
            .prop_map(|names| json!({"required": names})),
        prop::collection::vec(value(), 1..4).prop_map(|values| json!({"enum": values})),
        value().prop_map(|value| json!({"const": value})),
    ];
    let leaf = prop_oneof![
        1 => any::<bool>().prop_map(Value::Bool),
        8 => prop::collection::vec(keyword, 0..3).prop_map(merged),
    ];
    leaf.prop_recursive(3, 24, 3, |inner| {
        let named = |keyword: &'static str| {
            let name = prop::sample::select(vec!["a", "b"]);
            prop::collection::btree_map(name, inner.clone(), 1..3).prop_map(move |schemas| json!({keyword: schemas}))
        };
        let one = prop::sample::select(vec!["items", "additionalProperties", "not", "contains", "propertyNames"]);
        let list = prop::sample::select(vec!["anyOf", "oneOf", "allOf", "prefixItems"]);
        let part = prop_oneof![
            4 => named("properties"),
            1 => inner.clone().prop_map(|schema| json!({"patternProperties": {"^a": schema}})),
            3 => (one, inner.clone()).prop_map(|(keyword, schema)| json!({keyword: schema})),
            2 => (list, prop::collection::vec(inner.clone(), 1..3)).prop_map(|(keyword, schemas)| json!({keyword: schemas})),
            2 => inner.clone(),
        ];
        prop::collection::vec(part, 1..4).prop_map(merged)
    })
}

fn merged(parts: Vec<Value>) -> Value {
    let mut keywords = Map::new();
    for part in parts {
        match part {
            Value::Object(part) => keywords.extend(part),
            other => return other,
        }
    }
    Value::Object(keywords)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        (-4_i32..6).prop_map(|n| json!(n)),
        Just(json!(1.5)),
        Just(json!(2.0)),
        prop::sample::select(vec!["", "a", "ab", "b", "abc"]).prop_map(Value::from),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let name = prop::sample::select(vec!["a", "b", "ab", "c"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(name, inner, 0..3).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

fn objects() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["a", "b", "ab", "c"]).prop_map(str::to_owned);
    prop::collection::btree_map(name, values(), 0..4).prop_map(|members| members.into_iter().collect())
}

/// A schema and one that has been made from it: keywords were taken away, put
/// in, or replaced, somewhere.
fn pairs() -> impl Strategy<Value = (Value, Value)> {
    let edits = prop::collection::vec((any::<u16>(), 0_u8..4), 1..4);
    (schemas(), schemas(), edits).prop_map(|(old, other, edits)| {
        let mut new = old.clone();
        for (place, edit) in edits {
            edit_at(&mut new, &other, place, edit);
        }
        (old, new)
    })
}

fn edit_at(schema: &mut Value, other: &Value, place: u16, edit: u8) {
    let Value::Object(keywords) = schema else {
        *schema = other.clone();
        return;
    };
    let names: Vec<String> = keywords.keys().cloned().collect();
    let Some(name) = names.get(usize::from(place) % names.len().max(1)) else {
        *schema = other.clone();
        return;
    };
    match (edit, &mut keywords[name]) {
        (0, _) => _ = keywords.remove(name),
        (1, _) => keywords.extend(other.as_object().cloned().unwrap_or_default()),
        (_, Value::Object(inner)) if !inner.is_empty() => {
            let (_, inner) = inner.iter_mut().nth(usize::from(place / 7) % 2).unzip();
            if let Some(inner) = inner {
                edit_at(inner, other, place / 7, edit);
            }
        }
        (2, Value::Number(number)) => {
            let moved = number.as_i64().unwrap_or_default() + i64::from(place % 3) - 1;
            keywords[name] = json!(if name == "multipleOf" { moved.max(1) } else { moved });
        }
        (_, Value::Array(list)) if place.is_multiple_of(2) => _ = list.pop(),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_called_compatible_accepts_all_that_was_accepted(
        (old, new) in prop_oneof![3 => pairs(), 1 => (schemas(), schemas())],
        values in prop::collection::vec(objects(), 24),
    ) {
        if !faults(&old, &new).is_empty() {
            return Ok(());
        }
        let (Ok(was), Ok(is)) = (check::compile(&old), check::compile(&new)) else { return Ok(()) };
        for value in &values {
            prop_assert!(!was.is_valid(value) || is.is_valid(value), "{old} to {new}: {value}");
        }
    }
}
