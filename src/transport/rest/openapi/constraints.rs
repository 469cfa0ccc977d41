//! Constraints of values: lengths, patterns, ranges and lists, as far as JSON Schema can express them.
//! Configurable limits are those of this service.
//!
//! The service measures lengths in bytes and JSON Schema in characters: a text that satisfies the service
//! satisfies the schema.

use serde_json::{Map, Value, json};

use crate::config::Config;

/// Fields with a fixed set of values.
const ORG_ID: &str = "^[A-Za-z0-9_.-]{1,64}$";
const METRIC: &str = "^[A-Za-z0-9_.-]{1,64}$";
const WINDOW: &str = "^[0-9]+[mhd]$";
const DATE_OR_TIME: &str = "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt].+)?$";

/// Adds constraints that routes and types do not declare.
pub(super) fn complete(document: &mut Value, config: &Config) {
    for (schema, property, constraints) in properties(config) {
        let place = &mut document["components"]["schemas"][schema]["properties"][property];
        add(place, &constraints);
    }
    let parameters = parameters(config);
    for (_, _, operation) in super::operations(document) {
        for parameter in operation["parameters"].as_array_mut().into_iter().flatten() {
            let place = format!("{} {}", text(&parameter["in"]), text(&parameter["name"]));
            let Some((_, constraints)) = parameters.iter().find(|(known, _)| *known == place) else { continue };
            let schema = &mut parameter["schema"];
            add(if schema.get("items").is_some() { &mut schema["items"] } else { schema }, constraints);
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Adds keywords to a schema. A nullable schema stays nullable.
fn add(schema: &mut Value, constraints: &Value) {
    let types = &schema["type"];
    let may_be_null = types.as_array().is_some_and(|types| types.iter().any(|name| name == "null"));
    let mut constraints: Map<String, Value> = constraints.as_object().cloned().unwrap_or_default();
    if may_be_null && let Some(Value::Array(values)) = constraints.get_mut("enum") {
        values.push(Value::Null);
    }
    if let Some(schema) = schema.as_object_mut() {
        schema.extend(constraints);
    }
}

/// By schema and property.
fn properties(config: &Config) -> Vec<(&'static str, &'static str, Value)> {
    let at_most = |length: usize| json!({ "maxLength": length });
    let from_one = |length: usize| json!({ "minLength": 1, "maxLength": length });
    let (event_id, any_text) = (from_one(config.event_id_bytes_max), at_most(config.text_bytes_max));
    let event_type = json!({ "pattern": type_pattern(config) });
    let org_id = json!({ "pattern": ORG_ID });
    let unknown = json!({ "enum": ["accept", "reject"] });
    let mut all = vec![
        ("NewEvent", "event_id", event_id.clone()),
        ("NewEvent", "campaign_id", from_one(config.text_bytes_max)),
        ("NewEvent", "source", from_one(config.text_bytes_max)),
        ("AnalyticsEvent", "event_id", event_id.clone()),
        ("AnalyticsEvent", "event_type", event_type.clone()),
        ("AnalyticsEvent", "seq", json!({ "minimum": 0 })),
        ("NewEventType", "version", json!({ "minimum": 1, "maximum": u32::MAX })),
        ("NewOrganization", "name", from_one(256)),
        ("NewOrganization", "plan", at_most(64)),
        ("NewOrganization", "unknown_event_types", unknown.clone()),
        ("StoredOrganization", "unknown_event_types", unknown),
        ("NewUser", "email", at_most(320)),
        ("NewUser", "name", at_most(256)),
        ("NewUser", "role", at_most(64)),
        ("NewMember", "role", at_most(64)),
        ("MetricValue", "name", json!({ "pattern": METRIC })),
        ("MetricValue", "value", json!({ "minimum": -1e300, "maximum": 1e300 })),
        ("Stats", "granularity", json!({ "enum": ["minute", "hour", "day"] })),
        (
            "RejectedEvent",
            "code",
            json!({ "enum": ["INVALID", "SCHEMA", "UNKNOWN_TYPE", "TOO_OLD", "IN_FUTURE", "CONFLICT", "UNDECIDED"] }),
        ),
        ("Alive", "status", json!({ "enum": ["ok"] })),
    ];
    // Said outright: generators take an object without properties for one that may have none.
    let anything = json!({ "additionalProperties": true });
    all.extend(
        [
            ("NewEvent", "metadata"),
            ("Stored", "metadata"),
            ("AnalyticsEvent", "properties"),
            ("StoredItem", "properties"),
            ("NewEventType", "schema"),
            ("EventTypeVersion", "schema"),
        ]
        .map(|(schema, property)| (schema, property, anything.clone())),
    );
    for schema in ["NewEvent", "AnalyticsEvent"] {
        for property in ["creative_id", "user_id"] {
            all.push((schema, property, any_text.clone()));
        }
    }
    for property in ["source", "campaign_id"] {
        all.push(("AnalyticsEvent", property, any_text.clone()));
    }
    let with_org =
        ["NewEvent", "AnalyticsEvent", "AnalyticsEvents", "NewOrganization", "NewUser", "NewMember", "MetricValues"];
    all.extend(with_org.map(|schema| (schema, "org_id", org_id.clone())));
    all
}

/// By place and name.
fn parameters(config: &Config) -> Vec<(&'static str, Value)> {
    let event_type = json!({ "pattern": type_pattern(config) });
    let user_id = json!({ "minLength": 1, "maxLength": 256 });
    let date = json!({ "pattern": DATE_OR_TIME });
    vec![
        ("path event_id", json!({ "minLength": 1, "maxLength": config.event_id_bytes_max })),
        ("path user_id", user_id),
        ("path org_id", json!({ "pattern": ORG_ID })),
        ("path type", event_type.clone()),
        ("query org_id", json!({ "pattern": ORG_ID })),
        ("query event_type", event_type.clone()),
        ("query type", event_type),
        ("query granularity", json!({ "enum": ["minute", "hour", "day"], "default": "minute" })),
        ("query window", json!({ "pattern": WINDOW })),
        ("query start_date", date.clone()),
        ("query end_date", date),
        ("header Idempotency-Key", json!({ "minLength": 1, "maxLength": 255 })),
    ]
}

fn type_pattern(config: &Config) -> String {
    format!("^[A-Za-z0-9_.:-]{{1,{}}}$", config.type_bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constraint_has_a_place() {
        let config = Config::default();
        let document = super::super::document(&config).expect("JSON");
        for (schema, property, constraints) in properties(&config) {
            let place = &document["components"]["schemas"][schema]["properties"][property];
            let is_typed = place.get("type").is_some();
            assert!(is_typed, "{schema}.{property} is described, beside {constraints}: {place}");
        }
        let named: Vec<String> = document["paths"]
            .as_object()
            .expect("paths")
            .values()
            .flat_map(|methods| methods.as_object().expect("methods").values())
            .flat_map(|operation| operation["parameters"].as_array().into_iter().flatten())
            .map(|parameter| format!("{} {}", text(&parameter["in"]), text(&parameter["name"])))
            .collect();
        for (place, _) in parameters(&config) {
            assert!(named.iter().any(|name| name == place), "{place}");
        }
    }

    #[test]
    fn bounds_are_those_that_are_configured() {
        let config = Config { event_id_bytes_max: 77, type_bytes_max: 9, ..Config::default() };
        let document = super::super::document(&config).expect("JSON");
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["NewEvent"]["properties"]["event_id"]["maxLength"], 77);
        let pattern = &schemas["AnalyticsEvent"]["properties"]["event_type"]["pattern"];
        assert_eq!(pattern, "^[A-Za-z0-9_.:-]{1,9}$");
        let policy = &schemas["NewOrganization"]["properties"]["unknown_event_types"]["enum"];
        assert_eq!(policy, &json!(["accept", "reject", null]));
    }
}
