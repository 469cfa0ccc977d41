//! Schemas of properties: a subset of JSON Schema (draft 2020-12) for which checking an event takes a
//! bounded time.
//!
//! A schema is normalized to one text with sorted keys, and *expanded*: every reference is replaced by its
//! target, and annotations are removed. References must not be recursive, so the expanded schema is
//! finite, and its size bounds the cost of checking an event.

use serde_json::{Map, Value};

use crate::domain::FieldError;
use crate::json;

/// Longest text of a schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Deepest nesting of an expanded schema.
const DEPTH_MAX: usize = 32;
/// Most subschemas and values of `enum` in an expanded schema.
const NODES_MAX: usize = 5_000;
/// Most patterns in an expanded schema: each is a compiled automaton.
const PATTERNS_MAX: usize = 50;

/// Annotations, which are ignored.
const ANNOTATIONS: [&str; 14] = [
    "$comment",
    "$defs",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];

/// Unsupported keywords, with alternatives.
const UNSUPPORTED: [(&str, &str); 10] = [
    ("$anchor", "refer by '#/$defs/…'"),
    ("$dynamicAnchor", "refer by '#/$defs/…'"),
    ("$dynamicRef", "refer by '$ref'"),
    ("$id", "leave it out"),
    ("$recursiveAnchor", "refer by '#/$defs/…'"),
    ("$recursiveRef", "refer by '$ref'"),
    ("$vocabulary", "leave it out"),
    ("dependencies", "use 'dependentRequired' or 'dependentSchemas'"),
    ("unevaluatedItems", "use 'items'"),
    ("unevaluatedProperties", "use 'additionalProperties'"),
];

/// The formats that are known. Each is checked in a time that is linear in the
/// text.
pub(super) const FORMATS: [&str; 12] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "json-pointer",
    "time",
    "uri",
    "uri-reference",
    "uuid",
];

/// The supported draft.
const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema within the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Schema {
    text: String,
    root: Value,
    expanded: Value,
}

impl Schema {
    /// Parses the text of a schema.
    ///
    /// # Errors
    /// Every error, with its path.
    pub(super) fn parse(text: &str) -> Result<Self, Vec<FieldError>> {
        let wrong = |message: String| vec![FieldError::new("schema", message)];
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(wrong(format!("must be at most {SCHEMA_BYTES_MAX} bytes; it has {}", text.len())));
        }
        let root = json::parse(text).map_err(|error| wrong(format!("must be the text of a JSON object: {error}")))?;
        if !root.is_object() {
            return Err(wrong("must be an object".to_owned()));
        }
        let expanded = Expander::new(&root).expand()?;
        Ok(Self { text: root.to_string(), root, expanded })
    }

    /// Its normalized text, with sorted keys.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// As it was sent.
    pub(super) const fn root(&self) -> &Value {
        &self.root
    }

    /// Without references and descriptions.
    pub(super) const fn expanded(&self) -> &Value {
        &self.expanded
    }
}

/// How a keyword contains subschemas.
#[derive(Clone, Copy)]
enum SubschemaForm {
    One,
    List,
    ByName,
}

fn holds(keyword: &str) -> Option<SubschemaForm> {
    Some(match keyword {
        "additionalProperties" | "contains" | "else" | "if" | "items" | "not" | "propertyNames" | "then" => {
            SubschemaForm::One
        }
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => SubschemaForm::List,
        "$defs" | "definitions" | "dependentSchemas" | "patternProperties" | "properties" => SubschemaForm::ByName,
        _ => return None,
    })
}

struct Expander<'a> {
    root: &'a Value,
    /// The references that are being followed.
    following: Vec<&'a str>,
    nodes: usize,
    patterns: usize,
    faults: Vec<FieldError>,
}

impl<'a> Expander<'a> {
    const fn new(root: &'a Value) -> Self {
        Self { root, following: Vec::new(), nodes: 0, patterns: 0, faults: Vec::new() }
    }

    fn expand(mut self) -> Result<Value, Vec<FieldError>> {
        let expanded = self.schema(self.root, "schema", 0);
        let bounds =
            [(self.nodes, NODES_MAX, "subschemas and values of 'enum'"), (self.patterns, PATTERNS_MAX, "patterns")];
        for (count, max, what) in bounds {
            if count > max {
                let message = format!("may have at most {max} {what}, references followed");
                self.faults.push(FieldError::new("schema", message));
            }
        }
        if self.faults.is_empty() { Ok(expanded) } else { Err(self.faults) }
    }

    fn fault(&mut self, place: &str, message: impl Into<String>) {
        self.faults.push(FieldError::new(place, message));
    }

    /// No more is read once a bound is broken.
    const fn is_over(&self) -> bool {
        self.nodes > NODES_MAX || self.patterns > PATTERNS_MAX || self.faults.len() >= super::FAULTS_MAX
    }

    fn schema(&mut self, schema: &'a Value, place: &str, depth: usize) -> Value {
        self.nodes += 1;
        if self.is_over() {
            return Value::Bool(true);
        }
        match schema {
            Value::Bool(_) => schema.clone(),
            Value::Object(keywords) if depth < DEPTH_MAX => self.keywords(keywords, place, depth),
            Value::Object(_) => {
                self.fault(place, format!("may be nested at most {DEPTH_MAX} levels deep"));
                Value::Bool(true)
            }
            _ => {
                self.fault(place, "must be an object or a boolean");
                Value::Bool(true)
            }
        }
    }

    fn keywords(&mut self, keywords: &'a Map<String, Value>, place: &str, depth: usize) -> Value {
        let mut expanded = Map::new();
        for (keyword, value) in keywords {
            self.check(keyword, value, place);
            if self.is_over() {
                break;
            }
            let below = format!("{place}.{keyword}");
            let held = match (holds(keyword), value) {
                (Some(SubschemaForm::One), _) => self.schema(value, &below, depth + 1),
                (Some(SubschemaForm::List), Value::Array(list)) => {
                    let list = list.iter().enumerate();
                    list.map(|(n, schema)| self.schema(schema, &format!("{below}.{n}"), depth + 1)).collect()
                }
                (Some(SubschemaForm::ByName), Value::Object(schemas)) => {
                    let schemas = schemas.iter();
                    let schemas = schemas.map(|(name, schema)| {
                        (name.clone(), self.schema(schema, &format!("{below}.{name}"), depth + 1))
                    });
                    Value::Object(schemas.collect())
                }
                // What does not fit its keyword is refused by the compiler.
                _ => value.clone(),
            };
            if !ANNOTATIONS.contains(&&**keyword) && keyword != "$ref" {
                expanded.insert(keyword.clone(), held);
            }
        }
        match keywords.get("$ref") {
            Some(reference) => {
                let referred = self.follow(reference, &format!("{place}.$ref"), depth);
                both(referred, expanded)
            }
            None => Value::Object(expanded),
        }
    }

    fn follow(&mut self, reference: &'a Value, place: &str, depth: usize) -> Value {
        let text = reference.as_str().unwrap_or_default();
        let name = text.strip_prefix("#/$defs/").or_else(|| text.strip_prefix("#/definitions/"));
        let is_plain = |name: &&str| !name.is_empty() && !name.contains(['/', '~', '%']);
        let target = name.filter(is_plain).and_then(|_| self.root.pointer(&text[1..]));
        let Some(target) = target else {
            self.fault(place, "must be '#/$defs/…' of the same schema; a name there must not have '/', '~' or '%'");
            return Value::Bool(true);
        };
        if self.following.contains(&text) {
            self.fault(place, "must not lead back to itself");
            return Value::Bool(true);
        }
        self.following.push(text);
        let referred = self.schema(target, place, depth + 1);
        self.following.pop();
        referred
    }

    fn check(&mut self, keyword: &str, value: &Value, place: &str) {
        if let Some((_, instead)) = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == keyword) {
            self.fault(&format!("{place}.{keyword}"), format!("is not supported: {instead}"));
        }
        let draft = || value.as_str().map(|draft| draft.trim_end_matches('#'));
        match keyword {
            "$schema" if draft() != Some(DRAFT) => {
                self.fault(&format!("{place}.$schema"), format!("must be {DRAFT}, or left out"));
            }
            "format" if !value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {
                self.fault(&format!("{place}.format"), format!("must be one of {}", FORMATS.join(", ")));
            }
            "pattern" => self.patterns += 1,
            "patternProperties" => self.patterns += value.as_object().map_or(0, Map::len),
            "enum" => self.nodes += value.as_array().map_or(0, Vec::len),
            _ => {}
        }
    }
}

/// What satisfies a schema and further keywords.
fn both(referred: Value, mut keywords: Map<String, Value>) -> Value {
    if keywords.is_empty() {
        return referred;
    }
    // What is no list, the compiler refuses.
    if let Value::Array(all) = keywords.entry("allOf").or_insert_with(|| Value::Array(Vec::new())) {
        all.push(referred);
    }
    Value::Object(keywords)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The places at fault.
    fn check(schema: &Value, expected: &[&str]) {
        let faults = Schema::parse(&schema.to_string()).err().unwrap_or_default();
        let places: Vec<&str> = faults.iter().map(|fault| &*fault.field).collect();
        assert_eq!(places, expected, "{schema}: {faults:?}");
    }

    #[test]
    fn what_is_not_supported_is_named_by_place() {
        check(&json!({}), &[]);
        check(&json!({"$schema": "https://json-schema.org/draft/2020-12/schema#", "title": "a"}), &[]);
        check(&json!({"$schema": "http://json-schema.org/draft-07/schema#"}), &["schema.$schema"]);
        check(&json!({"properties": {"a": {"$ref": "https://example.com/a"}}}), &["schema.properties.a.$ref"]);
        check(&json!({"items": {"$ref": "file:///etc/passwd"}}), &["schema.items.$ref"]);
        check(&json!({"$ref": "#"}), &["schema.$ref"]);
        check(&json!({"$ref": "#/$defs/none"}), &["schema.$ref"]);
        check(
            &json!({"$id": "https://example.com/", "unevaluatedProperties": false}),
            &["schema.$id", "schema.unevaluatedProperties"],
        );
        check(&json!({"format": "regex"}), &["schema.format"]);
        // These are names of properties.
        check(&json!({"properties": {"$ref": {"type": "string"}, "$id": true, "format": {}}}), &[]);
        check(&json!([]), &["schema"]);
        check(&json!({"properties": {"a": 1}}), &["schema.properties.a"]);
    }

    #[test]
    fn a_schema_that_grows_without_bound_is_refused() {
        let around =
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"$ref": "#/$defs/a"}}});
        assert!(Schema::parse(&around.to_string()).is_err());
        // Twice as large with every step.
        let mut defs = Map::new();
        for n in 0..30 {
            let next = json!({"$ref": format!("#/$defs/d{}", n + 1)});
            defs.insert(format!("d{n}"), json!({"anyOf": [next, next]}));
        }
        defs.insert("d30".to_owned(), json!(true));
        let doubling = json!({"$ref": "#/$defs/d0", "$defs": defs});
        assert!(Schema::parse(&doubling.to_string()).is_err());
        let deep = (0..100).fold(json!({}), |inner, _| json!({"items": inner}));
        check(&deep, &[format!("schema{}", ".items".repeat(DEPTH_MAX)).as_str()]);
        check(&json!({"enum": vec![0; NODES_MAX + 1]}), &["schema"]);
        let patterns: Map<String, Value> = (0..=PATTERNS_MAX).map(|n| (format!("a{n}"), json!(true))).collect();
        check(&json!({"patternProperties": patterns}), &["schema"]);
        assert!(Schema::parse(&format!("{{\"title\":\"{}\"}}", "x".repeat(SCHEMA_BYTES_MAX))).is_err());
        assert!(Schema::parse(&"[".repeat(10_000)).is_err());
    }

    #[test]
    fn references_are_replaced_by_what_they_refer_to() {
        let schema = json!({
            "description": "a", "$defs": {"money": {"type": "number", "title": "m"}},
            "properties": {"price": {"$ref": "#/$defs/money"}, "tip": {"$ref": "#/$defs/money", "minimum": 0}},
        });
        let expected = json!({"properties": {
            "price": {"type": "number"}, "tip": {"minimum": 0, "allOf": [{"type": "number"}]},
        }});
        assert_eq!(*Schema::parse(&schema.to_string()).unwrap().expanded(), expected);
    }
}
