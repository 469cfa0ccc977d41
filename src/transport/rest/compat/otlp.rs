//! OTLP over HTTP at `POST /v1/logs`: binary Protobuf, or JSON. Which record becomes which event:
//! [`crate::transport::otlp`].

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Format, Head, Reading, route};
use crate::domain::Error;
use crate::event_intake::BatchResults;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::otlp;
use crate::transport::proto::codec::log_records;
use crate::transport::rest::auth_layer::Routes;

const PROTOBUF: &str = "application/x-protobuf";

static LOGS: Format = Format { has_key_in_body: false, read, answer };

/// Adds the path.
pub(super) fn add(routes: Routes) -> Routes {
    route(routes, "/v1/logs", &LOGS)
}

/// Whether a request is JSON; else it is Protobuf.
fn is_json(head: &Head) -> Result<bool, Failure> {
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => Ok(true),
        PROTOBUF => Ok(false),
        _ => {
            Err(Failure::unsupported_media_type("the content type must be application/x-protobuf or application/json"))
        }
    }
}

fn read(head: &Head, bytes: &Bytes, context: &TransportContext) -> Result<Reading, Failure> {
    let unreadable = |error: String| Error::invalid_field("body", format!("is no ExportLogsServiceRequest: {error}"));
    // Counted before it is decoded: an empty record takes two or three bytes here and hundreds in memory.
    let request = if is_json(head)? {
        let counted: CountedRequest = serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?;
        context.app.intake.check_count(counted.parts())?;
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?
    } else {
        context.app.intake.check_count(log_records(bytes))?;
        ExportLogsServiceRequest::decode(bytes.clone()).map_err(|error| unreadable(error.to_string()))?
    };
    Ok(Reading::new(otlp::events(&request, &context.app.config.otlp_id_attribute, head.now), None))
}

/// What has to be counted of a request in JSON; nothing else of it is kept.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CountedRequest {
    resource_logs: Vec<CountedResource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CountedResource {
    scope_logs: Vec<CountedScope>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CountedScope {
    log_records: Vec<IgnoredAny>,
}

impl CountedRequest {
    /// How many records, scopes and resources there are, as [`log_records`] counts them.
    fn parts(&self) -> usize {
        let of_resource = |resource: &CountedResource| -> usize {
            resource.scope_logs.iter().map(|scope| 1 + scope.log_records.len()).sum()
        };
        self.resource_logs.iter().map(|resource| 1 + of_resource(resource)).sum()
    }
}

fn answer(head: &Head, results: &BatchResults) -> Response {
    let answer = otlp::answer(&results.verdicts);
    if is_json(head).unwrap_or_default() {
        return Json(answer).into_response();
    }
    let mut response = answer.encode_to_vec().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_in_json_are_counted_as_those_in_protobuf() {
        let check = |json: &str| {
            let request: ExportLogsServiceRequest = serde_json::from_str(json).expect("a request");
            let counted: CountedRequest = serde_json::from_str(json).expect("a request");
            assert_eq!(counted.parts(), log_records(&request.encode_to_vec()), "{json}");
        };
        check("{}");
        check(r#"{"resourceLogs":[{},{"scopeLogs":[]}]}"#);
        check(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{"eventName":"click"}]},{}]}]}"#);
    }
}
