//! Checks properties against a compiled schema.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::cost::{self, Cost, STEPS_MAX};
use super::schema::Schema;
use crate::domain::FieldError;

/// Size classes of compiled patterns, in bytes. The last one is the largest allowed.
const PATTERN_SIZES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
/// Largest compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = PATTERN_SIZES[PATTERN_SIZES.len() - 1];
/// All patterns of a schema together, compiled, in bytes.
const PATTERNS_BYTES_MAX: usize = 512 << 10;
/// Largest cache of a pattern's lazy automaton, in bytes.
const AUTOMATON_BYTES_MAX: usize = 64 << 10;
/// About what a compiled subschema or value of `enum` takes, in bytes.
const NODE_BYTES: usize = 512;
/// More bytes of properties than any configuration allows.
const PROPERTIES_BYTES_BOUND: usize = 1 << 20;
/// Most steps for which all errors are collected; each step may be an error of some hundred bytes.
/// Beyond this, only the first error is described.
const EXPLAINED_STEPS_MAX: u64 = 20_000;
/// Longest path and longest message, in characters. Both contain text from callers.
const TEXT_CHARS_MAX: usize = 200;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct CompiledSchema {
    validator: Validator,
    cost: Cost,
    /// The expanded schema, for an exact count of steps if the estimate is too high.
    expanded: Option<Value>,
    bytes: usize,
}

impl CompiledSchema {
    /// Compiles a schema. Takes up to about a second.
    ///
    /// # Errors
    /// Errors by path: it is not a JSON Schema, or a pattern is invalid or too large.
    pub(super) fn compile(schema: &Schema) -> Result<Self, Vec<FieldError>> {
        let pattern_bytes = patterns_bytes(schema.expanded())?;
        let validator = compile(schema.root()).map_err(|error| {
            let place = format!("schema{}", dotted(error.instance_path().as_str()));
            vec![FieldError::new(cut(&place), cut(&error.masked().to_string()))]
        })?;
        let expanded = schema.expanded();
        let cost = Cost::of(expanded, pattern_bytes as u64);
        let is_near_the_bound = cost.of_values(cost::values_max(PROPERTIES_BYTES_BOUND)) > STEPS_MAX;
        let nodes = usize::try_from(cost::values(expanded)).unwrap_or(usize::MAX);
        let bytes = pattern_bytes
            .saturating_add(pattern_bytes.div_ceil(PATTERN_SIZES[0]) * AUTOMATON_BYTES_MAX.min(pattern_bytes))
            .saturating_add(nodes.saturating_mul(NODE_BYTES))
            .saturating_add(schema.text().len());
        Ok(Self { validator, cost, expanded: is_near_the_bound.then(|| expanded.clone()), bytes })
    }

    /// The approximate memory, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// An upper bound for the cost of checking properties of this size, in steps.
    pub(super) const fn steps_of_text(&self, bytes: usize) -> u64 {
        self.cost.of_text(bytes)
    }

    /// The errors of an event's properties; empty if they satisfy the schema.
    pub(super) fn faults(&self, properties: &Value) -> Vec<FieldError> {
        let steps = self.cost.of_values(cost::values(properties));
        if steps > STEPS_MAX
            && self.expanded.as_ref().is_none_or(|expanded| cost::is_too_expensive(expanded, properties))
        {
            let message = format!("take more than {STEPS_MAX} steps to be checked against the schema of the type");
            return vec![FieldError::new("properties", message)];
        }
        if self.validator.is_valid(properties) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        if steps > EXPLAINED_STEPS_MAX {
            if let Err(error) = self.validator.validate(properties) {
                describe(&error, &mut faults);
            }
        } else {
            for error in self.validator.iter_errors(properties).take(super::FAULTS_MAX) {
                describe(&error, &mut faults);
            }
        }
        if faults.is_empty() {
            // Invalid, and nothing to be said of it, must not be accepted.
            faults.push(FieldError::new("properties", "do not satisfy the schema of the type"));
        }
        faults.truncate(super::FAULTS_MAX);
        faults
    }
}

/// Compiles a schema, or a part of an expanded one. Patterns are matched in a
/// time that is linear in the text, and nothing is fetched.
pub(super) fn compile(schema: &Value) -> Result<Validator, ValidationError<'static>> {
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(AUTOMATON_BYTES_MAX);
    jsonschema::draft202012::options()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .offline()
        .build(schema)
}

/// The bytes of all patterns of an expanded schema, compiled, each rounded up to
/// one of [`PATTERN_SIZES`].
///
/// # Errors
/// When they are more than [`PATTERNS_BYTES_MAX`].
fn patterns_bytes(expanded: &Value) -> Result<usize, Vec<FieldError>> {
    let mut patterns = Vec::new();
    collect_patterns(expanded, &mut patterns);
    let bytes = patterns.into_iter().map(pattern_bytes).sum();
    if bytes <= PATTERNS_BYTES_MAX {
        return Ok(bytes);
    }
    let message = format!(
        "has patterns ('pattern', 'patternProperties') of {bytes} bytes when they are compiled; at most \
         {PATTERNS_BYTES_MAX} are allowed: use fewer, and smaller repetitions"
    );
    Err(vec![FieldError::new("schema", message)])
}

/// Collects patterns; values of `enum` that look like patterns are included.
fn collect_patterns<'a>(schema: &'a Value, patterns: &mut Vec<&'a str>) {
    match schema {
        Value::Object(keywords) => {
            patterns.extend(keywords.get("pattern").and_then(Value::as_str));
            let by_pattern = keywords.get("patternProperties").and_then(Value::as_object);
            patterns.extend(by_pattern.into_iter().flatten().map(|(pattern, _)| &**pattern));
            keywords.values().for_each(|value| collect_patterns(value, patterns));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_patterns(item, patterns)),
        _ => {}
    }
}

/// The size of a compiled pattern; 0 for an invalid or too large one, which the compilation of the
/// schema reports.
fn pattern_bytes(pattern: &str) -> usize {
    let fits = |bytes: &usize| {
        let options = PatternOptions::regex().size_limit(*bytes).dfa_size_limit(AUTOMATON_BYTES_MAX);
        let options = jsonschema::draft202012::options().with_pattern_options(options);
        options.build(&serde_json::json!({ "pattern": pattern })).is_ok()
    };
    PATTERN_SIZES.into_iter().find(|bytes| fits(bytes)).unwrap_or_default()
}

fn describe(error: &ValidationError<'_>, faults: &mut Vec<FieldError>) {
    let place = format!("properties{}", dotted(error.instance_path().as_str()));
    let named = |name: &str| cut(&format!("{place}.{name}"));
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            faults.push(FieldError::new(named(property.as_str().unwrap_or_default()), "is required"));
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let unexpected = unexpected.iter().take(super::FAULTS_MAX);
            faults.extend(unexpected.map(|name| FieldError::new(named(name), "is not a property of this type")));
        }
        _ => faults.push(FieldError::new(cut(&place), cut(&error.masked().to_string()))),
    }
}

/// A JSON pointer with dots: "/a/0/b" is ".a.0.b".
fn dotted(pointer: &str) -> String {
    pointer.replace('/', ".").replace("~1", "/").replace("~0", "~")
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn compiled(schema: &Value) -> Result<CompiledSchema, Vec<FieldError>> {
        CompiledSchema::compile(&Schema::parse(&schema.to_string())?)
    }

    #[test]
    fn faults_say_where_and_what() {
        let check = compiled(&json!({
            "type": "object", "required": ["sku"], "additionalProperties": false,
            "properties": {
                "sku": {"type": "string", "pattern": "^[A-Z]{3}$"},
                "items": {"type": "array", "items": {"properties": {"price": {"type": "number", "minimum": 0}}}},
                "at": {"format": "date-time"},
            },
        }))
        .unwrap();
        let faults = |value: Value| -> Vec<String> {
            check.faults(&value).into_iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect()
        };
        assert_eq!(faults(json!({"sku": "ABC", "items": [{"price": 1.5}], "at": "2026-02-10T21:10:00Z"})), [""; 0]);
        assert_eq!(faults(json!({})), ["properties.sku: is required"]);
        assert_eq!(
            faults(json!({"sku": "ABC", "b/c": 1, "items": [{}, {"price": -1}]})),
            [
                "properties.items.1.price: value is less than the minimum of 0",
                "properties.b/c: is not a property of this type",
            ]
        );
        assert_eq!(faults(json!({"sku": 5})), ["properties.sku: value is not of type \"string\""]);
        assert_eq!(faults(json!({"sku": "ABC", "at": "now"})), ["properties.at: value is not a \"date-time\""]);
        assert_eq!(faults(json!({"sku": "abc"})), ["properties.sku: value does not match \"^[A-Z]{3}$\""]);
    }

    #[test]
    fn a_schema_that_is_none_is_refused_by_place() {
        let check = |schema: Value, place: &str| {
            let faults = compiled(&schema).err().unwrap_or_default();
            assert_eq!(faults.first().map(|fault| &*fault.field), Some(place), "{schema}: {faults:?}");
        };
        check(json!({"type": "text"}), "schema.type");
        check(json!({"properties": {"a": {"minLength": -1}}}), "schema.properties.a.minLength");
        check(json!({"properties": {"a": {"pattern": "(a"}}}), "schema.properties.a.pattern");
        // Neither looks around, nor refers back: both take unbounded time.
        check(json!({"pattern": "(?=a)b"}), "schema.pattern");
        check(json!({"pattern": "(a)\\1"}), "schema.pattern");
        check(json!({"pattern": "((a{1000}){1000}){1000}"}), "schema.pattern");
        check(json!({"patternProperties": {"(": true}}), "schema.patternProperties.(");
    }

    #[test]
    fn every_format_that_is_named_is_checked() {
        for format in super::super::schema::FORMATS {
            let check = compiled(&json!({"properties": {"a": {"format": format}}})).unwrap();
            assert_eq!(check.faults(&json!({"a": "%% /\u{0} %%"})).len(), 1, "{format}");
            assert_eq!(check.faults(&json!({"a": 5})), [], "{format} is of texts");
        }
    }

    #[test]
    fn patterns_are_bounded_together() {
        let schema = |patterns: usize| {
            let pattern = |n: usize| (format!("p{n}"), json!({"pattern": format!("^(a|b|{n}){{1,800}}$")}));
            json!({ "properties": (0..patterns).map(pattern).collect::<serde_json::Map<_, _>>() })
        };
        assert!(compiled(&schema(1)).is_ok());
        let faults = compiled(&schema(20)).unwrap_err();
        assert!(faults[0].message.contains("'pattern'"), "{faults:?}");
        let small = |n: usize| (format!("p{n}"), json!({"pattern": "^[A-Z]{3}-[0-9]{4}$"}));
        let small = json!({ "properties": (0..50).map(small).collect::<serde_json::Map<_, _>>() });
        assert!(compiled(&small).is_ok());
    }

    #[test]
    fn what_is_dear_to_describe_is_described_by_its_first_fault() {
        let constants: Vec<Value> = (0..200).map(|n| json!({"const": n})).collect();
        let check = compiled(&json!({"properties": {"a": {"items": {"anyOf": constants}}}})).unwrap();
        let faults = check.faults(&json!({"a": vec!["x"; 8_000]}));
        assert_eq!(faults.iter().map(|fault| &*fault.field).collect::<Vec<_>>(), ["properties.a.0"]);
        assert_eq!(check.faults(&json!({"a": [1, "x", "y"]})).len(), 2);
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_before_its_items_are_looked_at() {
        let constants: Vec<Value> = (0..4_000).map(|n| json!({"const": n})).collect();
        let check = compiled(&json!({"properties": {"a": {"items": {"anyOf": constants}, "maxItems": 100}}})).unwrap();
        assert_eq!(check.faults(&json!({"a": vec![3_999; 100], "b": vec![0; 5_000]})), []);
        let faults = check.faults(&json!({"a": vec![3_999; 5_000]}));
        assert!(faults[0].message.contains("steps"), "{faults:?}");
    }

    #[test]
    fn a_pattern_takes_linear_time() {
        let check = compiled(&json!({"properties": {"a": {"pattern": "^(a+)+$"}}})).unwrap();
        assert_eq!(check.faults(&json!({"a": format!("{}!", "a".repeat(16_000))})).len(), 1);
    }

    proptest! {
        #[test]
        fn no_number_panics(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?") {
            let value = crate::json::parse(&format!("{{\"a\":{number}}}")).unwrap();
            let schema = json!({"properties": {"a": {
                "minimum": 0.5, "maximum": 1e300, "multipleOf": 0.01, "type": "integer", "enum": [1, 2.5],
            }}});
            let _ = compiled(&schema).unwrap().faults(&value);
            let limit = value["a"].clone();
            let schema = json!({"properties": {"a": {"minimum": limit, "multipleOf": limit, "const": limit}}});
            if let Ok(check) = compiled(&schema) {
                let _ = check.faults(&value);
                let _ = check.faults(&json!({"a": 7, "b": 1.5e300}));
            }
        }
    }
}
