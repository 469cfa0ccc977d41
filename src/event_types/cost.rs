//! An upper bound for the cost of checking an event against a schema, known before the check.
//!
//! The unit is a *step*: one subschema or value of `enum` applied to one value, some tens of nanoseconds.
//! In an expanded schema, which is a tree, a subschema is applied to a value at most once. The cost of
//! checking a value with `n` values in it (including itself) is therefore at most `once + per_value × n`,
//! and that of its patterns `per_byte` for each byte of its text.

use serde_json::{Map, Value};

use crate::domain::FieldError;

/// Most steps for checking one event; about 0.1 s.
pub(super) const STEPS_MAX: u64 = 4_000_000;
/// The cost of a pattern in addition to its text, in steps.
const PATTERN_STEPS: u64 = 4;
/// The cost of `uniqueItems` for each value in the array: hashing, and some comparisons.
const UNIQUE_STEPS: u64 = 16;
/// Compiled bytes of a pattern that cost one step for each byte of text: each
/// byte may be compared with every state of the automaton.
const PATTERN_BYTES_PER_STEP: u64 = 256;
/// Least bytes of a value in a JSON text, with what separates it from the next.
const VALUE_BYTES_MIN: usize = 2;

/// The bound on what checking costs, in steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    once: u64,
    per_value: u64,
    per_byte: u64,
}

impl Cost {
    /// The cost of an expanded schema, with the size of its compiled patterns in bytes. `maxItems`
    /// and `maxProperties` bound nothing here: whether a list is longer may be looked at after its
    /// items.
    pub(super) fn of(expanded: &Value, pattern_bytes: u64) -> Self {
        let mut walk = Walk { faults: None, values_max: 0, are_lists_bounded: false };
        let cost = walk.schema(expanded, "");
        Self { per_byte: pattern_bytes.div_ceil(PATTERN_BYTES_PER_STEP), ..cost }
    }

    /// An upper bound for a text of this size.
    pub(super) const fn of_text(&self, bytes: usize) -> u64 {
        let text = self.per_byte.saturating_mul(bytes as u64);
        self.of_values(values_max(bytes)).saturating_add(text)
    }

    /// An upper bound for this number of values, without patterns.
    pub(super) const fn of_values(&self, values: u64) -> u64 {
        self.once.saturating_add(self.per_value.saturating_mul(values))
    }

    /// Both are applied to the same value.
    const fn and(self, other: Self) -> Self {
        Self {
            once: self.once.saturating_add(other.once),
            per_value: self.per_value.saturating_add(other.per_value),
            per_byte: 0,
        }
    }

    /// Both are applied, to values that have nothing in common.
    const fn beside(self, other: Self) -> Self {
        let per_value = if self.per_value > other.per_value { self.per_value } else { other.per_value };
        Self { once: self.once.saturating_add(other.once), per_value, per_byte: 0 }
    }

    /// Applied to each value that a value holds, of which there are so many at
    /// most where that is known.
    const fn for_each(self, count_max: Option<u64>) -> Self {
        match count_max {
            Some(count) => Self { once: self.once.saturating_mul(count), ..self },
            None => Self { once: 0, per_value: self.per_value.saturating_add(self.once), per_byte: 0 },
        }
    }

    const fn steps(steps: u64) -> Self {
        Self { once: steps, per_value: 0, per_byte: 0 }
    }
}

/// Whether checking a value can take more than [`STEPS_MAX`] steps. Exact, and so
/// itself of as many steps, which are cheap ones.
pub(super) fn is_too_expensive(expanded: &Value, value: &Value) -> bool {
    let mut counting = StepCounter { left: STEPS_MAX };
    counting.apply(expanded, value);
    counting.left == 0
}

/// Counts what is applied to what, without stopping at the first failure, until
/// nothing is left.
struct StepCounter {
    left: u64,
}

impl StepCounter {
    fn apply(&mut self, schema: &Value, value: &Value) {
        let Value::Object(keywords) = schema else { return self.take(1) };
        self.take(1 + own(keywords));
        for (keyword, held) in keywords {
            if self.left == 0 {
                return;
            }
            match (&**keyword, held, value) {
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas), _) => {
                    schemas.iter().for_each(|schema| self.apply(schema, value));
                }
                ("not" | "if" | "then" | "else", schema, _) => self.apply(schema, value),
                ("dependentSchemas", Value::Object(schemas), _) => {
                    schemas.values().for_each(|schema| self.apply(schema, value));
                }
                ("prefixItems", Value::Array(schemas), Value::Array(items)) => {
                    schemas.iter().zip(items).for_each(|(schema, item)| self.apply(schema, item));
                }
                ("items" | "contains", schema, Value::Array(items)) => self.apply_to_each(schema, items.iter()),
                ("uniqueItems", Value::Bool(true), _) => self.take(UNIQUE_STEPS.saturating_mul(values(value))),
                ("properties", Value::Object(schemas), Value::Object(members)) => {
                    for (name, schema) in schemas {
                        members.get(name).into_iter().for_each(|member| self.apply(schema, member));
                    }
                }
                ("additionalProperties", schema, Value::Object(members)) => {
                    self.apply_to_each(schema, members.values());
                }
                ("propertyNames", schema, Value::Object(members)) => {
                    // Whatever the name, it is a text.
                    members.keys().for_each(|_| self.apply(schema, &Value::Null));
                }
                ("patternProperties", Value::Object(schemas), Value::Object(members)) => {
                    for schema in schemas.values() {
                        self.take(PATTERN_STEPS.saturating_mul(members.len() as u64));
                        self.apply_to_each(schema, members.values());
                    }
                }
                _ => {}
            }
        }
    }

    fn apply_to_each<'v>(&mut self, schema: &Value, values: impl Iterator<Item = &'v Value>) {
        for value in values {
            if self.left == 0 {
                return;
            }
            self.apply(schema, value);
        }
    }

    const fn take(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
    }
}

/// How many values a text of so many bytes can hold.
pub(super) const fn values_max(bytes: usize) -> u64 {
    (bytes / VALUE_BYTES_MIN) as u64 + 1
}

/// How many values there are in one, itself included.
pub(super) fn values(value: &Value) -> u64 {
    match value {
        Value::Array(items) => 1 + items.iter().map(values).sum::<u64>(),
        Value::Object(members) => 1 + members.values().map(values).sum::<u64>(),
        _ => 1,
    }
}

/// Refuses an expanded schema with which one event of so many bytes could cost
/// more than [`STEPS_MAX`], naming the keywords that cost it.
///
/// # Errors
/// The places, and what is allowed there.
pub(super) fn check(expanded: &Value, properties_bytes_max: usize) -> Result<(), Vec<FieldError>> {
    let values_max = values_max(properties_bytes_max);
    let mut walk = Walk { faults: Some(Vec::new()), values_max, are_lists_bounded: true };
    let cost = walk.schema(expanded, "schema");
    let mut faults = walk.faults.unwrap_or_default();
    let steps = cost.of_values(values_max);
    if faults.is_empty() && steps > STEPS_MAX {
        let message = format!(
            "may take {steps} steps to check one event; at most {STEPS_MAX} are allowed: use fewer subschemas, or bound \
             lists by 'maxItems'"
        );
        faults.push(FieldError::new("schema", message));
    }
    faults.truncate(super::FAULTS_MAX);
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

struct Walk {
    /// The expensive keywords, if requested.
    faults: Option<Vec<FieldError>>,
    values_max: u64,
    /// Whether lists keep to `maxItems`, and objects to `maxProperties`.
    are_lists_bounded: bool,
}

impl Walk {
    fn schema(&mut self, schema: &Value, place: &str) -> Cost {
        let Value::Object(keywords) = schema else { return Cost::steps(1) };
        let mut cost = Cost::steps(1 + own(keywords));
        for keyword in ["allOf", "anyOf", "oneOf"] {
            cost = self.list(keywords, keyword, place).into_iter().fold(cost, Cost::and);
        }
        for keyword in ["not", "if", "then", "else"] {
            cost = self.one(keywords, keyword, place).into_iter().fold(cost, Cost::and);
        }
        cost = self.named(keywords, "dependentSchemas", place).into_iter().fold(cost, Cost::and);
        cost.and(self.items(keywords, place)).and(self.members(keywords, place))
    }

    fn items(&mut self, keywords: &Map<String, Value>, place: &str) -> Cost {
        let count_max = self.count_max(keywords, "maxItems");
        let first = self.list(keywords, "prefixItems", place).into_iter().fold(Cost::default(), Cost::beside);
        let rest = self.each(keywords, "items", ("maxItems", count_max), place);
        let contains = self.each(keywords, "contains", ("maxItems", count_max), place);
        let is_unique = keywords.get("uniqueItems") == Some(&Value::Bool(true));
        let unique = Cost { per_value: if is_unique { UNIQUE_STEPS } else { 0 }, ..Cost::default() };
        first.beside(rest).and(contains).and(unique)
    }

    fn members(&mut self, keywords: &Map<String, Value>, place: &str) -> Cost {
        let bound = ("maxProperties", self.count_max(keywords, "maxProperties"));
        let named = self.named(keywords, "properties", place).into_iter().fold(Cost::default(), Cost::beside);
        let others = self.each(keywords, "additionalProperties", bound, place);
        let names = self.each(keywords, "propertyNames", bound, place);
        let patterns = self.named(keywords, "patternProperties", place);
        // Each pattern is matched with each name.
        let matched = |cost: Cost| cost.and(Cost::steps(PATTERN_STEPS)).for_each(bound.1);
        let patterned = patterns.into_iter().map(matched).fold(Cost::default(), Cost::and);
        named.beside(others).and(names).and(patterned)
    }

    /// A subschema that is applied to each value of a list or an object.
    fn each(
        &mut self,
        keywords: &Map<String, Value>,
        keyword: &str,
        (bound, count_max): (&str, Option<u64>),
        place: &str,
    ) -> Cost {
        let Some(one) = self.one(keywords, keyword, place) else { return Cost::default() };
        let each = one.for_each(count_max);
        let steps_max = STEPS_MAX / self.values_max.max(1);
        let of_one = one.once.saturating_add(one.per_value);
        if let Some(faults) = &mut self.faults
            && each.of_values(self.values_max) > STEPS_MAX
            && faults.len() < super::FAULTS_MAX
        {
            let message = format!(
                "may take {of_one} steps for each value, of which an event can have {}; at most {steps_max} are allowed \
                 without a smaller '{bound}'",
                self.values_max
            );
            faults.push(FieldError::new(format!("{place}.{keyword}"), message));
            // What holds it need not be named as well.
            return Cost::default();
        }
        each
    }

    /// A bound of a count, such as `maxItems`; none when it is not given, is no
    /// whole number, or binds nobody.
    fn count_max(&self, keywords: &Map<String, Value>, keyword: &str) -> Option<u64> {
        keywords.get(keyword).and_then(Value::as_u64).filter(|_| self.are_lists_bounded)
    }

    fn one(&mut self, keywords: &Map<String, Value>, keyword: &str, place: &str) -> Option<Cost> {
        keywords.get(keyword).map(|schema| self.schema(schema, &format!("{place}.{keyword}")))
    }

    fn list(&mut self, keywords: &Map<String, Value>, keyword: &str, place: &str) -> Vec<Cost> {
        let list = keywords.get(keyword).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let list = list.iter().enumerate();
        list.map(|(n, schema)| self.schema(schema, &format!("{place}.{keyword}.{n}"))).collect()
    }

    fn named(&mut self, keywords: &Map<String, Value>, keyword: &str, place: &str) -> Vec<Cost> {
        let named = keywords.get(keyword).and_then(Value::as_object).into_iter().flatten();
        named.map(|(name, schema)| self.schema(schema, &format!("{place}.{keyword}.{name}"))).collect()
    }
}

/// What a schema's own keywords cost, those that hold subschemas left out.
fn own(keywords: &Map<String, Value>) -> u64 {
    let of_keyword = |(keyword, value): (&String, &Value)| match (&**keyword, value) {
        ("enum" | "const", value) => values(value),
        ("pattern" | "format", _) => PATTERN_STEPS,
        ("required", Value::Array(names)) => names.len() as u64,
        ("dependentRequired", value) => values(value),
        ("properties", Value::Object(named)) => named.len() as u64,
        _ => 1,
    };
    keywords.iter().map(of_keyword).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::event_types::schema::Schema;

    const BYTES_MAX: usize = 16 << 10;

    fn places(schema: &Value) -> Vec<String> {
        let faults = check(schema, BYTES_MAX).err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn what_is_dear_for_each_item_is_refused_by_its_keyword() {
        let constants: Vec<Value> = (0..2_400).map(|n| json!({"const": n})).collect();
        let dear = json!({ "anyOf": constants });
        assert_eq!(places(&json!({"properties": {"a": {"items": dear}}})), ["schema.properties.a.items"]);
        assert_eq!(places(&json!({ "additionalProperties": dear })), ["schema.additionalProperties"]);
        assert_eq!(places(&json!({"items": {"enum": (0..2_400).collect::<Vec<_>>()}})), ["schema.items"]);
        // Once, or for a few, it may be.
        assert_eq!(places(&json!({"properties": {"a": dear}})), [""; 0]);
        assert_eq!(places(&json!({"properties": {"a": {"items": dear, "maxItems": 100}}})), [""; 0]);
        let faults = check(&json!({ "items": dear, "maxItems": 5_000 }), BYTES_MAX).unwrap_err();
        assert!(faults[0].message.contains("'maxItems'"), "{faults:?}");
        // Lists in lists: the sum of all their values is bounded, not each.
        let nested = (0..8).fold(json!({"type": "number"}), |inner, _| json!({ "items": inner }));
        assert_eq!(places(&nested), [""; 0]);
        // Many cheap lists beside each other share one event.
        let lists: Map<String, Value> =
            (0..100).map(|n| (format!("p{n}"), json!({"items": {"enum": [1, 2, 3]}}))).collect();
        assert_eq!(places(&json!({ "properties": lists })), [""; 0]);
        // On top of each other they do not.
        let lists: Vec<Value> = (0..100).map(|_| json!({"items": {"enum": [1, 2, 3]}})).collect();
        assert_eq!(places(&json!({ "allOf": lists })), ["schema"]);
    }

    #[test]
    fn an_ordinary_schema_is_far_from_the_bound() {
        let schema = json!({
            "type": "object", "required": ["sku", "items"], "additionalProperties": false,
            "properties": {
                "sku": {"type": "string", "pattern": "^[A-Z]{3}$"}, "currency": {"enum": ["EUR", "USD", "CHF"]},
                "items": {"type": "array", "items": {"type": "object", "properties": {
                    "sku": {"type": "string", "maxLength": 64}, "price": {"type": "number", "minimum": 0},
                    "tags": {"type": "array", "uniqueItems": true, "items": {"enum": ["a", "b", "c", "d"]}},
                }}},
            },
        });
        assert_eq!(places(&schema), [""; 0]);
        assert!(Cost::of(&schema, 4 << 10).of_text(200) < 10_000);
    }

    /// Counts the steps of applying every subschema to every possible value, without stopping at a
    /// failure.
    fn work(schema: &Value, value: &Value) -> u64 {
        let Value::Object(keywords) = schema else { return 1 };
        let mut steps = 1 + keywords.get("enum").and_then(Value::as_array).map_or(0, |all| all.len() as u64);
        let list = |keyword: &str| keywords.get(keyword).and_then(Value::as_array).cloned().unwrap_or_default();
        for keyword in ["allOf", "anyOf", "oneOf"] {
            steps += list(keyword).iter().map(|schema| work(schema, value)).sum::<u64>();
        }
        steps += keywords.get("not").map_or(0, |schema| work(schema, value));
        if let Value::Array(items) = value {
            let first = list("prefixItems");
            for (n, item) in items.iter().enumerate() {
                let schema = first.get(n).or_else(|| keywords.get("items"));
                steps += schema.map_or(0, |schema| work(schema, item));
                steps += keywords.get("contains").map_or(0, |schema| work(schema, item));
            }
        }
        if let Value::Object(members) = value {
            let named = |keyword: &str| keywords.get(keyword).and_then(Value::as_object).cloned().unwrap_or_default();
            for (name, member) in members {
                let schema = named("properties").get(name).cloned();
                let schema = schema.or_else(|| keywords.get("additionalProperties").cloned());
                steps += schema.map_or(0, |schema| work(&schema, member));
                steps += named("patternProperties").values().map(|schema| 1 + work(schema, member)).sum::<u64>();
                steps += keywords.get("propertyNames").map_or(0, |schema| work(schema, &json!(name)));
            }
        }
        steps
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), (0..4).prop_map(|n| json!(n)), "[a-c]".prop_map(|text| json!(text))];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::hash_map("[a-c]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn any_schema() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!({"type": "number"})),
            Just(json!(true)),
            (1..5_usize).prop_map(|n| json!({ "enum": vec![7; n] }))
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 1..4);
            prop_oneof![
                (prop::sample::select(vec!["allOf", "anyOf", "oneOf", "prefixItems"]), list)
                    .prop_map(|(keyword, schemas)| json!({ keyword: schemas })),
                (
                    prop::sample::select(vec!["items", "contains", "not", "additionalProperties", "propertyNames"]),
                    inner.clone()
                )
                    .prop_map(|(keyword, schema)| json!({ keyword: schema })),
                (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, others)| json!({
                    "properties": {"a": a, "b": b}, "additionalProperties": others, "items": a,
                })),
                (inner.clone(), inner).prop_map(|(a, b)| json!({"patternProperties": {"^a": a, ".": b}})),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn the_estimate_bounds_the_work(schema in any_schema(), value in any_value()) {
            let bound = Cost::of(&schema, 0).of_values(values(&value));
            let mut counting = StepCounter { left: u64::MAX };
            counting.apply(&schema, &value);
            let counted = u64::MAX - counting.left;
            prop_assert!(work(&schema, &value) <= counted && counted <= bound, "{counted}");
            prop_assert!(work(&schema, &value) <= bound, "{} > {bound}", work(&schema, &value));
            let text = value.to_string();
            prop_assert!(values(&value) <= values_max(text.len()));
        }

        #[test]
        fn no_schema_makes_it_panic(schema in any_schema(), bytes in 0..100_000_usize) {
            let _ = check(&schema, bytes);
            if let Ok(parsed) = Schema::parse(&json!({"items": schema}).to_string()) {
                let _ = Cost::of(parsed.expanded(), u64::MAX).of_text(bytes);
            }
        }
    }
}
