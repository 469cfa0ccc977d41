//! Checking properties against a compiled schema.

use jsonschema::error::ValidationErrorKind;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::schema::Schema;
use crate::domain::FieldError;

/// Largest compiled pattern, in bytes, and as much again for its lazy automaton.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Longest name of a place, in characters, and longest message: both are made
/// from what others have written.
const TEXT_CHARS_MAX: usize = 200;

/// A compiled schema.
#[derive(Debug)]
pub(super) struct Check {
    validator: Validator,
}

impl Check {
    /// Compiles a schema.
    ///
    /// # Errors
    /// What is wrong with it, by place: it is no JSON Schema, or a pattern is
    /// none, or is too large.
    pub(super) fn compile(schema: &Schema) -> Result<Self, Vec<FieldError>> {
        let compiled = compile(schema.root());
        compiled.map(|validator| Self { validator }).map_err(|error| {
            let place = format!("schema{}", dotted(error.instance_path().as_str()));
            vec![FieldError::new(cut(&place), cut(&error.masked().to_string()))]
        })
    }

    /// What is wrong with an event's properties; nothing when they are as the
    /// schema wants them.
    pub(super) fn faults(&self, properties: &Value) -> Vec<FieldError> {
        if self.validator.is_valid(properties) {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for error in self.validator.iter_errors(properties).take(super::FAULTS_MAX) {
            describe(&error, &mut faults);
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
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
    jsonschema::draft202012::options()
        .with_pattern_options(patterns)
        .should_validate_formats(true)
        .offline()
        .build(schema)
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

    fn compiled(schema: &Value) -> Result<Check, Vec<FieldError>> {
        Check::compile(&Schema::parse(&schema.to_string())?)
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
