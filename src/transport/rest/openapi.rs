//! The description of the REST interface (OpenAPI 3.1), for this service's configuration.
//!
//! `utoipa` collects the descriptions of routes and types. Descriptions that apply to many of them are
//! added here: required scopes ([`security`]), errors ([`errors`]), and allowed values ([`constraints`]).

mod constraints;
mod errors;
mod security;

use serde_json::Value;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{campaigns, events, health, pipeline, stats, users, v1};
use crate::config::Config;

/// The description.
///
/// # Errors
/// When it cannot be written as JSON.
pub(super) fn document(config: &Config) -> Result<Value, serde_json::Error> {
    let mut description = Description::openapi();
    if !config.has_pipeline() {
        description.paths.paths.retain(|path, _| !path.starts_with("/pipeline/"));
    }
    let mut document = serde_json::to_value(description)?;
    security::complete(&mut document, config);
    errors::complete(&mut document);
    constraints::complete(&mut document, config);
    Ok(document)
}

/// Every operation: its path, its method, and its description.
fn operations(document: &mut Value) -> impl Iterator<Item = (&String, &String, &mut Value)> {
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    paths.flat_map(|(path, methods)| {
        let methods = methods.as_object_mut().into_iter().flatten();
        methods.map(move |(method, operation)| (path, method, operation))
    })
}

/// The descriptions of routes and types.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tallyhouse",
        description = "Counts every event id exactly once.\n\nEvery error has the same body. An unknown path answers \
            404 `NOT_FOUND`, a wrong method 405 `METHOD_NOT_ALLOWED` with `Allow`. Unknown parameters are ignored. \
            If the service has authentication, requests require a bearer token, which names their organization. \
            Bodies can be compressed (`Content-Encoding: gzip`). Large answers are compressed if the request accepts gzip. \
            The same port speaks gRPC and grpc-web; reflection describes it.",
    ),
    servers((url = "/")),
    paths(
        events::take, events::list, events::show, stats::show, users::top, campaigns::top,
        v1::events::take, v1::lists::list, v1::lists::show, v1::metrics::put, v1::metrics::summary,
        v1::metrics::daily_active_users, v1::organizations::put, v1::organizations::show, v1::organizations::top,
        v1::sql::run, v1::members::put, v1::members::list, v1::users::put, v1::users::show,
        v1::event_types::list, v1::event_types::show, v1::event_types::put,
        v1::write_keys::create, v1::write_keys::list, v1::write_keys::revoke,
        v1::subscriptions::create, v1::subscriptions::list, v1::subscriptions::show, v1::subscriptions::change,
        v1::subscriptions::delete, v1::subscriptions::pause, v1::subscriptions::resume,
        v1::subscriptions::states::subscription, v1::subscriptions::states::event, v1::subscriptions::states::user,
        v1::subscriptions::states::pause_user, v1::subscriptions::states::resume_user,
        v1::subscriptions::letters::list, v1::subscriptions::letters::show, v1::subscriptions::letters::replay,
        v1::subscriptions::letters::discard,
        pipeline::take, pipeline::show, pipeline::status, pipeline::rebuild,
        health::alive, health::ready, super::metrics::show, super::docs::description,
    ),
    modifiers(&BearerToken, &UnderBothNames),
    tags(
        (name = "Events", description = "Send events, and read single events."),
        (name = "Counts", description = "Read counts from the rollups."),
        (name = "Analytics", description = "Customer analytics: events, counts, daily metrics, organizations and users."),
        (name = "Deliveries", description = "Subscriptions: events are handed to handlers, each user's once and in order."),
        (name = "Pipeline", description = "Send events that are processed once each, in the order of their users' seqs."),
        (name = "Service", description = "Probes, metrics and this description."),
    ),
)]
struct Description;

/// Describes the bearer token.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut Document) {
        let text = "A JSON Web Token with the claims `org_id`, `scope` (any of `ingest`, `read`, `admin`) and `exp`.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(text));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// Describes routes that are also served under `/api/v1`.
struct UnderBothNames;

impl Modify for UnderBothNames {
    fn modify(&self, document: &mut Document) {
        for (path, operation_id) in
            [("/users/top", "getAnalyticsTopUsers"), ("/campaigns/top", "getAnalyticsTopCampaigns")]
        {
            let Some(mut item) = document.paths.paths.get(path).cloned() else { continue };
            if let Some(operation) = &mut item.get {
                operation.operation_id = Some(operation_id.to_owned());
                operation.tags = Some(vec!["Analytics".to_owned()]);
            }
            document.paths.paths.insert(format!("/api/v1{path}"), item);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_and_status_is_described() {
        let description = document(&Config::default()).expect("JSON");
        let check = |path: &str, method: &str, expected: &[&str]| {
            let responses = description["paths"][path][method]["responses"].as_object();
            let statuses: Vec<&str> = responses.into_iter().flatten().map(|(status, _)| &**status).collect();
            assert_eq!(statuses, expected, "{method} {path}");
        };
        check("/events", "post", &["202", "401", "403", "408", "413", "415", "422", "429", "500", "503"]);
        check("/events", "get", &["200", "401", "403", "422", "429", "500", "503"]);
        check("/events/{event_id}", "get", &["200", "401", "403", "404", "422", "429", "500", "503"]);
        check("/stats", "get", &["200", "401", "403", "422", "429", "500", "503"]);
        check("/users/top", "get", &["200", "401", "403", "422", "429", "500", "503"]);
        check("/campaigns/top", "get", &["200", "401", "403", "422", "429", "500", "503"]);
        check("/api/v1/events", "post", &["202", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"]);
        check("/api/v1/event-types", "get", &["200", "401", "403", "422", "429", "500", "503"]);
        check("/api/v1/event-types/{type}", "get", &["200", "401", "403", "404", "422", "429", "500", "503"]);
        let new = ["200", "201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "500", "503"];
        check("/api/v1/event-types/{type}", "put", &new);
        let new_key = ["201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "500", "503"];
        let query: [&str; 7] = ["200", "401", "403", "422", "429", "500", "503"];
        let put = ["200", "400", "401", "403", "408", "413", "415", "422", "429", "500", "503"];
        let one = ["200", "401", "403", "404", "422", "429", "500", "503"];
        let list = ["200", "400", "401", "403", "422", "429", "500", "503"];
        check("/api/v1/events", "get", &list);
        check("/api/v1/events/{event_id}", "get", &one);
        check("/api/v1/metrics", "post", &put);
        check("/api/v1/metrics/summary", "get", &query);
        check("/api/v1/metrics/dau", "get", &query);
        check("/api/v1/users/top", "get", &query);
        check("/api/v1/campaigns/top", "get", &query);
        check("/api/v1/organizations/top", "get", &query);
        check("/api/v1/organizations/{org_id}", "put", &put);
        check("/api/v1/organizations/{org_id}", "get", &one);
        check("/api/v1/organizations/{org_id}/members", "get", &list);
        check("/api/v1/organizations/{org_id}/members/{user_id}", "put", &put);
        check("/api/v1/users/{user_id}", "put", &put);
        check("/api/v1/users/{user_id}", "get", &one);
        check("/api/v1/write-keys", "post", &new_key);
        check("/api/v1/write-keys", "get", &query);
        check("/api/v1/write-keys/{key_id}", "delete", &one);
        let new_subscription = ["201", "400", "401", "403", "408", "409", "413", "415", "422", "429", "500", "503"];
        let gone: [&str; 8] = ["204", "401", "403", "404", "422", "429", "500", "503"];
        let body = ["200", "400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503"];
        check("/api/v1/subscriptions", "post", &new_subscription);
        check("/api/v1/subscriptions", "get", &query);
        check("/api/v1/subscriptions/{name}", "get", &one);
        check("/api/v1/subscriptions/{name}", "patch", &body);
        check("/api/v1/subscriptions/{name}", "delete", &gone);
        for (path, method) in [
            ("pause", "post"),
            ("resume", "post"),
            ("status", "get"),
            ("events/{event_id}", "get"),
            ("users/{user_id}", "get"),
            ("users/{user_id}/pause", "post"),
            ("users/{user_id}/resume", "post"),
            ("dead-letters", "get"),
            ("dead-letters/{number}", "get"),
        ] {
            check(&format!("/api/v1/subscriptions/{{name}}/{path}"), method, &one);
        }
        check("/api/v1/subscriptions/{name}/dead-letters/replay", "post", &body);
        check("/api/v1/subscriptions/{name}/dead-letters/discard", "post", &body);
        check("/api/v1/sql", "post", &["200", "401", "404", "422", "503"]);
        check("/healthz", "get", &["200"]);
        check("/readyz", "get", &["200", "503"]);
        check("/metrics", "get", &["200", "401", "403"]);
        check("/openapi.json", "get", &["200"]);
        assert_eq!(description["paths"].as_object().map(serde_json::Map::len), Some(39));
    }

    #[test]
    fn what_a_status_means_is_said_where_it_means_more() {
        let description = document(&Config::default()).expect("JSON");
        for (path, method, code) in [
            ("/api/v1/events", "post", "IDEMPOTENCY_KEY_REUSED"),
            ("/api/v1/event-types/{type}", "put", "INCOMPATIBLE_SCHEMA"),
        ] {
            let said = &description["paths"][path][method]["responses"]["422"]["description"];
            assert!(said.as_str().is_some_and(|said| said.contains(code)), "{path}: {said}");
        }
    }

    #[test]
    fn what_must_be_there_is_said_to_be_required() {
        let description = document(&Config::default()).expect("JSON");
        let check = |schema: &str, expected: &[&str]| {
            let required = &description["components"]["schemas"][schema]["required"];
            let mut required: Vec<&str> = required.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            required.sort_unstable();
            assert_eq!(required, expected, "{schema}");
        };
        check("NewEvent", &["campaign_id", "event_id", "occurred_at", "source", "type"]);
        check("Page", &["events", "next_cursor"]);
        check("Stats", &["campaign_id", "from", "granularity", "series", "to"]);
        check(
            "Stored",
            &[
                "campaign_id",
                "creative_id",
                "event_id",
                "metadata",
                "occurred_at",
                "received_at",
                "source",
                "type",
                "user_id",
            ],
        );
    }

    #[test]
    fn every_operation_that_may_be_refused_names_its_scope() {
        let description = document(&Config::default()).expect("JSON");
        let paths = description["paths"].as_object().expect("paths");
        for (path, operation) in paths.iter().flat_map(|(path, methods)| {
            methods.as_object().into_iter().flat_map(move |methods| methods.values().map(move |method| (path, method)))
        }) {
            let scope = operation["security"][0]["token"][0].as_str();
            assert_eq!(operation["responses"].get("403").is_some(), scope.is_some(), "{path}");
        }
    }

    /// Where schemas are defined.
    const SOURCES: [&str; 2] = [
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/transport/rest"),
        concat!(env!("CARGO_MANIFEST_DIR"), "/src/transport/error"),
    ];

    /// The names of the schemas that a file defines.
    fn schema_names(source: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut lines = source.lines();
        while let Some(line) = lines.next() {
            if !(line.contains("#[derive(") && line.contains("ToSchema")) {
                continue;
            }
            let mut given = None;
            for line in lines.by_ref() {
                if let Some((_, rest)) = line.split_once("as = ") {
                    given = rest.split([',', ')']).next().map(str::to_owned);
                }
                let mut words = line.split([' ', '<', '(', '{']).skip_while(|word| !["struct", "enum"].contains(word));
                if let Some(name) = words.nth(1) {
                    names.push(given.unwrap_or_else(|| name.to_owned()));
                    break;
                }
            }
        }
        names
    }

    #[test]
    fn no_two_types_share_the_name_of_a_schema() {
        // The last of them would stand for all in the description.
        let mut pending = SOURCES.map(std::path::PathBuf::from).to_vec();
        let mut names: Vec<String> = Vec::new();
        while let Some(path) = pending.pop() {
            if path.is_dir() {
                pending
                    .extend(std::fs::read_dir(path).expect("a directory").map(|entry| entry.expect("an entry").path()));
            } else if path.file_name().is_some_and(|name| name != "openapi.rs") {
                names.extend(schema_names(&std::fs::read_to_string(path).expect("a source")));
            }
        }
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert!(all == names.len() && all > 40, "{all} names, {} of them different: {names:?}", names.len());
        let description = document(&Config::default()).expect("JSON");
        let schemas = description["components"]["schemas"].as_object().expect("schemas");
        let unknown: Vec<&String> = schemas.keys().filter(|name| !names.contains(name)).collect();
        assert!(unknown.is_empty(), "the test does not see {unknown:?}");
        let types = &schemas["AdEventType"]["enum"];
        assert_eq!(types, &serde_json::json!(["click", "impression"]));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(object) => {
                    found.extend(object.get("$ref").and_then(Value::as_str));
                    object.values().for_each(|value| references(value, found));
                }
                Value::Array(array) => array.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let description = document(&Config::default()).expect("JSON");
        let mut found = Vec::new();
        references(&description, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            assert!(description.pointer(pointer).is_some(), "{reference}");
        }
    }
}
