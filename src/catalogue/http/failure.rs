//! Errors as JSON. All errors have the same body; this module maps each kind to its status and code.

use std::borrow::Cow;

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::admin_auth::Denial;
use crate::catalogue::CatalogueError;
use crate::domain::{FieldFault, Refusal};
use crate::summary::SummaryError;

/// `Retry-After` when the catalogue cannot answer, in seconds.
const RETRY_AFTER_SECONDS: u16 = 1;

/// An error with its HTTP status, before it is written.
#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    details: Vec<FieldFault>,
    challenge: Option<&'static str>,
}

impl Failure {
    const fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), details: Vec::new(), challenge: None }
    }

    pub(super) const fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such path")
    }

    pub(super) const fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such event")
    }

    pub(super) const fn no_such_notification() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", "there is no such notification that was given up")
    }

    /// The path has other methods, which the `Allow` header names.
    pub(super) const fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "this path does not have this method")
    }

    pub(super) const fn unsupported_media_type(message: &'static str) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        let message = Cow::Owned(format!("the body may have at most {bytes_max} bytes"));
        Self { message, ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE", "") }
    }

    pub(super) const fn body_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", "the body did not arrive in time")
    }

    pub(super) fn invalid_json(message: String) -> Self {
        let details = vec![FieldFault::new("body", message)];
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "INVALID_JSON", "the body is not JSON") }
    }

    pub(super) fn invalid(details: Vec<FieldFault>) -> Self {
        Self { details, ..Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", "validation failed") }
    }

    const fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the catalogue cannot answer at the moment")
    }

    pub(super) const fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "internal error")
    }

    fn refused(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidTransition { from, to } => {
                let message = format!("an event cannot go from {from} to {to}");
                let details = vec![FieldFault::new("status", format!("cannot change from {from} to {to}"))];
                let failure = Self::new(StatusCode::BAD_REQUEST, "INVALID_STATUS_TRANSITION", "");
                Self { message: Cow::Owned(message), details, ..failure }
            }
            Refusal::Outdated => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "PRECONDITION_FAILED",
                "the event has changed since: If-Match does not name its present ETag",
            ),
        }
    }
}

impl From<CatalogueError> for Failure {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Invalid(faults) => Self::invalid(faults),
            CatalogueError::NotFound => Self::not_found(),
            CatalogueError::Refused(refusal) => Self::refused(refusal),
            CatalogueError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "the idempotency key was used with another body",
            ),
            CatalogueError::Store(error) if error.is_temporary() => {
                tracing::warn!(%error, "the catalogue's database does not answer");
                Self::unavailable()
            }
            CatalogueError::Store(error) => {
                tracing::error!(%error, "the catalogue's database failed");
                Self::internal()
            }
        }
    }
}

impl From<SummaryError> for Failure {
    /// The cause is in the log.
    fn from(_: SummaryError) -> Self {
        Self::unavailable()
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        let unauthorized = |message, challenge| Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
        };
        match denial {
            Denial::Missing => {
                unauthorized("an administrator's bearer token is required", "Bearer realm=\"tallyhouse\"")
            }
            Denial::Wrong => unauthorized(
                "the token is not an administrator's",
                "Bearer realm=\"tallyhouse\", error=\"invalid_token\", \
                 error_description=\"the token is not an administrator's\"",
            ),
            Denial::Unavailable => Self::unavailable(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let details = self.details.into_iter().map(|FieldFault { field, message }| Detail { field, message }).collect();
        let body = ErrorBody { error: ErrorInfo { code: self.code, message: self.message, details } };
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(super) struct ErrorBody {
    error: ErrorInfo,
}

/// The error.
#[derive(Serialize, ToSchema)]
struct ErrorInfo {
    /// A stable code for programs.
    #[schema(example = "VALIDATION_ERROR")]
    code: &'static str,
    /// A readable message.
    #[schema(value_type = String, example = "validation failed")]
    message: Cow<'static, str>,
    /// Every invalid field; often none.
    details: Vec<Detail>,
}

/// An invalid field.
#[derive(Serialize, ToSchema)]
struct Detail {
    /// The field's, parameter's or header's name; `body` for the body as a whole.
    #[schema(example = "startAt")]
    field: String,
    /// What is wrong and what is allowed.
    #[schema(example = "must not be in the past")]
    message: String,
}
