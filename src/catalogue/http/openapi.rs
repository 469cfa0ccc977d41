//! The OpenAPI description of the catalogue.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{OpenApi as Document, Server};
use utoipa::{IntoParams, Modify, OpenApi, ToSchema};

use super::{admin, notifications, public, summary};

/// The OpenAPI description of the catalogue, collected by `utoipa`.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tallyhouse ticketing catalogue",
        description = "An event catalogue: administrators create, publish, cancel and list events, and the public reads them.\n\nEvery error has the same body. \
            An unknown path answers 404 `NOT_FOUND`, a wrong method 405 `METHOD_NOT_ALLOWED` with `Allow`. Unknown \
            parameters are ignored, unknown fields of bodies are refused. Times are RFC 3339: offsets are accepted, answers \
            are in UTC.",
    ),
    paths(
        admin::create, admin::list, admin::show, admin::change, notifications::list, notifications::retry,
        public::list, public::show, summary::show,
    ),
    modifiers(&BearerToken),
    tags(
        (name = "Administration", description = "For administrators. Requires a bearer token."),
        (name = "Public", description = "Requires no token."),
    ),
)]
struct Description;

/// The description as JSON, for a service below this prefix.
pub(super) fn description(prefix: &str) -> serde_json::Result<String> {
    let mut document = Description::openapi();
    document.servers = Some(vec![Server::new(if prefix.is_empty() { "/" } else { prefix })]);
    document.to_json()
}

/// Describes the token that administrators send.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, document: &mut Document) {
        let text = "One of the catalogue's administrator tokens, or a JSON Web Token with the scope `admin` where the \
                    service accepts them.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme.build()));
    }
}

/// An event to create.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes")]
pub(super) struct NewEvent {
    /// 1 to 200 characters after trimming.
    #[schema(example = "Hamlet")]
    title: String,
    /// RFC 3339, truncated to milliseconds; not in the past.
    #[schema(example = "2030-05-17T20:30:00+01:00")]
    start_at: String,
    /// RFC 3339; after `startAt`.
    #[schema(example = "2030-05-17T23:00:00+01:00")]
    end_at: String,
    /// 1 to 200 characters after trimming.
    #[schema(example = "Globe Theatre, London")]
    location: String,
    /// `DRAFT` (default), `PUBLISHED` or `CANCELLED`.
    #[schema(example = "DRAFT")]
    status: Option<String>,
    /// At most 10,000 characters, or null. Private.
    internal_notes: Option<String>,
    /// At most 320 characters, or null. Private.
    #[schema(example = "ophelia@example.org")]
    created_by: Option<String>,
}

/// A change of an event.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[allow(dead_code, reason = "describes")]
pub(super) struct EventChange {
    /// `PUBLISHED` or `CANCELLED`, or the current status.
    #[schema(example = "PUBLISHED")]
    status: Option<String>,
    /// At most 10,000 characters; null removes them.
    internal_notes: Option<String>,
}

/// The parameters of lists.
#[derive(IntoParams)]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
#[allow(dead_code, reason = "describes")]
pub(super) struct ListParams {
    /// A day in UTC, such as `2030-05-17`. Events that end before it are left out.
    date_from: Option<String>,
    /// A day in UTC. Events that start after it are left out.
    date_to: Option<String>,
    /// Parts of locations, separated by commas, without regard to case. An event matches if it
    /// contains one of them. At most 100.
    locations: Option<String>,
    /// From 1.
    page: Option<u64>,
    /// 1 to 100; default 20.
    limit: Option<u32>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn described(prefix: &str) -> Value {
        serde_json::from_str(&description(prefix).unwrap()).unwrap()
    }

    #[test]
    fn every_operation_and_status_is_described() {
        let description = described("/ticketing");
        let check = |path: &str, method: &str, expected: &[&str]| {
            let responses = description["paths"][path][method]["responses"].as_object();
            let statuses: Vec<&str> = responses.into_iter().flatten().map(|(status, _)| &**status).collect();
            assert_eq!(statuses, expected, "{method} {path}");
        };
        check("/events", "post", &["201", "400", "401", "408", "413", "415", "422", "503"]);
        check("/events", "get", &["200", "400", "401", "503"]);
        check("/events/{id}", "get", &["200", "304", "401", "404", "503"]);
        check("/events/{id}", "patch", &["200", "400", "401", "404", "408", "412", "413", "415", "503"]);
        check("/notifications", "get", &["200", "400", "401", "503"]);
        check("/notifications/{id}/retry", "post", &["202", "401", "404", "503"]);
        check("/public/events", "get", &["200", "400", "503"]);
        check("/public/events/{id}", "get", &["200", "304", "404", "503"]);
        check("/public/events/{id}/summary", "get", &["200", "304", "404", "503"]);
        assert_eq!(description["servers"][0]["url"], "/ticketing");
        assert_eq!(described("")["servers"][0]["url"], "/");
    }

    #[test]
    fn names_are_those_of_the_wire() {
        let schemas = &described("")["components"]["schemas"];
        let check = |schema: &str, expected: &[&str]| {
            let mut names: Vec<&str> =
                schemas[schema]["properties"].as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
            names.sort_unstable();
            assert_eq!(names, expected, "{schema}");
        };
        let new = ["createdBy", "endAt", "internalNotes", "location", "startAt", "status", "title"];
        check("NewEvent", &new);
        check("EventChange", &["internalNotes", "status"]);
        check("PublicEvent", &["endAt", "id", "isUpcoming", "location", "startAt", "status", "title"]);
        check("Pagination", &["limit", "page", "total", "totalPages"]);
    }
}
