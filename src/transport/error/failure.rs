//! Errors as JSON, with one body for all.

use std::borrow::Cow;
use std::time::Duration;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use super::names;
use super::rate_limit;
use crate::domain::{Breach, Error, ErrorCode, FieldError};

/// An error with its HTTP status, before it is written.
#[derive(Debug)]
pub(in crate::transport) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    breaches: Vec<Breach>,
}

impl Failure {
    const fn http(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message: Cow::Borrowed(message),
            details: Vec::new(),
            retry_after: None,
            breaches: Vec::new(),
        }
    }

    /// There is no such path.
    pub(in crate::transport) const fn no_such_path() -> Self {
        Self::http(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path")
    }

    /// The path has other methods, which the `Allow` header names.
    pub(in crate::transport) const fn method_not_allowed() -> Self {
        Self::http(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path does not have this method")
    }

    /// The content type of the body is not supported.
    pub(in crate::transport) const fn unsupported_media_type(message: &'static str) -> Self {
        Self::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
    }

    /// The body did not arrive in time.
    pub(in crate::transport) const fn request_timeout() -> Self {
        Self::http(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not arrive in time")
    }

    /// The body is not JSON. (For contracts that distinguish this from invalid fields.)
    pub(in crate::transport) fn malformed_json(message: String) -> Self {
        let details = vec![Detail::from(FieldError::new("body", message))];
        Self { details, ..Self::http(StatusCode::BAD_REQUEST, "MALFORMED_JSON", "the body cannot be read") }
    }

    /// No event of a batch was accepted, for these reasons.
    pub(in crate::transport) fn no_event_accepted(details: Vec<Detail>) -> Self {
        Self { details, ..Self::from(Error::invalid(Vec::new())) }
    }

    /// An error of the pipeline, where invalid requests are answered with 400.
    pub(in crate::transport) fn of_pipeline(error: Error) -> Self {
        let failure = Self::from(error);
        let is_invalid = failure.status == StatusCode::UNPROCESSABLE_ENTITY;
        Self { status: if is_invalid { StatusCode::BAD_REQUEST } else { failure.status }, ..failure }
    }

    /// The cursor is not one of this list. (For contracts that distinguish this from other invalid
    /// parameters.)
    pub(in crate::transport) fn invalid_cursor(error: Error) -> Self {
        let Self { details, .. } = Self::from(error);
        Self { details, ..Self::http(StatusCode::BAD_REQUEST, "INVALID_CURSOR", "the cursor cannot be used") }
    }

    /// What it names.
    #[cfg(test)]
    pub(in crate::transport) fn details(&self) -> &[Detail] {
        &self.details
    }

    /// Its HTTP status.
    #[cfg(test)]
    pub(in crate::transport) const fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let names = names(error.code);
        Self {
            status: names.http,
            code: names.code,
            message: Cow::Owned(error.message),
            details: error.fields.into_iter().map(Detail::from).collect(),
            retry_after: error.retry_after,
            breaches: error.breaches,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: ErrorInfo { code: self.code, message: self.message, details: self.details } };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_millis().div_ceil(1_000).clamp(1, 3_600) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            // What is taken instead (RFC 9110, 15.5.16).
            response.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        rate_limit::tell(&self.breaches, response.headers_mut());
        response
    }
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(in crate::transport) struct ErrorBody {
    error: ErrorInfo,
}

/// The error.
#[derive(Serialize, ToSchema)]
pub(in crate::transport) struct ErrorInfo {
    /// A stable code for programs.
    #[schema(example = "VALIDATION_ERROR")]
    code: &'static str,
    /// A readable message.
    #[schema(value_type = String, example = "validation failed")]
    message: Cow<'static, str>,
    /// Every invalid field; often none.
    details: Vec<Detail>,
}

impl ErrorInfo {
    /// The service cannot answer at the moment.
    pub(in crate::transport) fn unavailable(message: String) -> Self {
        Self { code: names(ErrorCode::Unavailable).code, message: Cow::Owned(message), details: Vec::new() }
    }
}

/// An invalid field.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::transport) struct Detail {
    /// The field's or the parameter's name; `body` for the body as a whole. A path within a field
    /// uses dots.
    #[schema(example = "occurred_at")]
    pub(in crate::transport) field: String,
    /// What is wrong and what is allowed.
    #[schema(example = "must be an RFC 3339 time")]
    pub(in crate::transport) message: String,
    /// Why the event that the field belongs to was not accepted, when a batch is refused because none of its events
    /// was: a code as in `rejected` of an accepted batch. Otherwise missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, nullable = false, example = "CONFLICT")]
    pub(in crate::transport) code: Option<&'static str>,
}

impl From<FieldError> for Detail {
    fn from(FieldError { field, message }: FieldError) -> Self {
        Self { field, message, code: None }
    }
}

/// The errors of any request, for its description.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes")]
pub(in crate::transport) enum AnyFailure {
    /// The request is invalid: `VALIDATION_ERROR`, with every invalid field.
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// The token is missing or invalid: `UNAUTHENTICATED`. (Only with authentication.)
    #[response(status = 401, headers(("WWW-Authenticate" = String, description = "What is wrong with the token.")))]
    Unauthenticated(ErrorBody),
    /// The token does not allow this, or the request names another organization than the token: `PERMISSION_DENIED`.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The organization, or a user of the events, is over a rate limit: `RATE_LIMITED`. Nothing was
    /// stored.
    #[response(status = 429, headers(
        ("Retry-After" = u64, description = "Seconds to wait."),
        ("RateLimit" = String, description = "What remains of which limit, and the seconds until it is renewed; see draft-ietf-httpapi-ratelimit-headers."),
        ("RateLimit-Policy" = String, description = "The limits: the number of events, and the window in seconds."),
    ))]
    Limited(ErrorBody),
    /// An internal error: `INTERNAL`.
    #[response(status = 500)]
    Internal(ErrorBody),
    /// The service is overloaded (`OVERLOADED`), or a part of it cannot be reached (`UNAVAILABLE`);
    /// retry.
    #[response(status = 503, headers(("Retry-After" = u64, description = "Seconds to wait.")))]
    Unavailable(ErrorBody),
}

/// The errors of any body under `/api/v1`, for its description.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes")]
pub(in crate::transport) enum BodyFailure {
    /// The body is not JSON: `MALFORMED_JSON`.
    #[response(status = 400)]
    Malformed(ErrorBody),
    /// The body did not arrive in time: `REQUEST_TIMEOUT`.
    #[response(status = 408)]
    Late(ErrorBody),
    /// The body is too large: `TOO_LARGE`.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body is not `application/json`: `UNSUPPORTED_MEDIA_TYPE`.
    #[response(status = 415)]
    OfAnotherType(ErrorBody),
}
