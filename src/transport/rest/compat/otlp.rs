//! OTLP over HTTP at `POST /v1/logs`: binary Protobuf, or JSON. Which record becomes which event:
//! [`crate::transport::otlp`].

use axum::Json;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost::Message as _;

use super::{Format, Head, Reading, route};
use crate::domain::Error;
use crate::event_intake::BatchResults;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::otlp;
use crate::transport::proto::codec::log_records;
use crate::transport::rest::auth_layer::Routes;

const PROTOBUF: &str = "application/x-protobuf";

static LOGS: Format = Format { read, answer };

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
    let request = if is_json(head)? {
        serde_json::from_slice(bytes).map_err(|error| unreadable(error.to_string()))?
    } else {
        // Before it is decoded: an empty record takes two bytes here and hundreds in memory.
        context.app.intake.check_count(log_records(bytes))?;
        ExportLogsServiceRequest::decode(bytes.clone()).map_err(|error| unreadable(error.to_string()))?
    };
    Ok(Reading { events: otlp::events(&request, &context.app.config.otlp_id_attribute, head.now), key: None })
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
