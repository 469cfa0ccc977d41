//! Errors as Connect has them, made of gRPC's status.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// The status that an answer's headers or trailers hold; `Unknown` where they hold none.
pub(super) fn status_of(headers: &HeaderMap) -> Status {
    Status::from_header_map(headers).unwrap_or_else(|| Status::unknown("the answer has no status"))
}

/// The error of a status as JSON.
pub(super) fn to_json(status: &Status) -> Value {
    let mut error = json!({ "code": name(status.code()), "message": status.message() });
    let details = tonic_types::Status::decode(status.details()).map(|status| status.details).unwrap_or_default();
    if !details.is_empty() {
        let named = details.iter().map(|detail| {
            let kind = detail.type_url.rsplit('/').next().unwrap_or_default();
            json!({ "type": kind, "value": BASE64_STANDARD_NO_PAD.encode(&detail.value) })
        });
        error["details"] = named.collect();
    }
    error
}

/// The answer to a unary call that failed.
pub(super) fn response(status: &Status) -> Response {
    let mut response = (http_status(status.code()), to_json(status).to_string()).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if let Some(wait) = wait {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

const fn name(code: Code) -> &'static str {
    match code {
        Code::Ok | Code::Unknown => "unknown",
        Code::Cancelled => "canceled",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The HTTP status of an error ("Error Codes" of the protocol).
fn http_status(code: Code) -> StatusCode {
    let status = match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => 500,
    };
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn an_error_has_its_code_message_and_details() {
        let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1_500)));
        let status = Status::with_error_details(Code::Unavailable, "later", details);
        let error = to_json(&status);
        assert_eq!((&error["code"], &error["message"]), (&json!("unavailable"), &json!("later")));
        assert_eq!(error["details"][0]["type"], "google.rpc.RetryInfo");
        let response = response(&status);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(to_json(&Status::not_found("no")), json!({ "code": "not_found", "message": "no" }));
    }
}
