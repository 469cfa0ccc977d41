//! Errors in the format of ClickHouse: clients expect `Code: … DB::Exception: …` and a header.

use axum::http::StatusCode;

use super::statement::Refusal;

/// ClickHouse's numbers of errors that mean more than that a statement is wrong.
pub(super) const TOO_MANY_QUERIES: u32 = 202;
pub(super) const AUTHENTICATION_FAILED: u32 = 516;

/// An error for the analyst.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Code: {code}. DB::Exception: {message}. ({name})\n")]
pub(super) struct GatewayError {
    pub status: StatusCode,
    /// ClickHouse's number of the error.
    pub code: u32,
    /// ClickHouse's name of the error.
    pub name: String,
    pub message: String,
}

impl GatewayError {
    pub(super) fn new(status: StatusCode, code: u32, name: &str, message: impl Into<String>) -> Self {
        Self { status, code, name: name.to_owned(), message: message.into() }
    }

    pub(super) fn foreign_host() -> Self {
        let message = "the request names a host that is not this service's: call it localhost or by its address, or \
                       name the host in the setting sql_allowed_hosts";
        Self::new(StatusCode::FORBIDDEN, 497, "ACCESS_DENIED", message)
    }

    pub(super) fn foreign_page() -> Self {
        Self::new(StatusCode::FORBIDDEN, 497, "ACCESS_DENIED", "the request comes from the page of another site")
    }

    pub(super) fn authentication() -> Self {
        let message = "Authentication failed: user or password is wrong. `tallyhouse analyst [ORG]` prints them";
        Self::new(StatusCode::FORBIDDEN, AUTHENTICATION_FAILED, "AUTHENTICATION_FAILED", message)
    }

    pub(super) fn request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 36, "BAD_ARGUMENTS", message)
    }

    pub(super) fn setting(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, 164, "READONLY", message)
    }

    pub(super) fn busy(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, TOO_MANY_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message)
    }

    pub(super) fn too_long() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, 159, "TIMEOUT_EXCEEDED", "the statement took longer than it may")
    }

    pub(super) fn away() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, 210, "NETWORK_ERROR", "ClickHouse does not answer just now")
    }
}

impl From<Refusal> for GatewayError {
    fn from(refusal: Refusal) -> Self {
        let (status, code, name) = match &refusal {
            Refusal::Syntax(_) => (StatusCode::BAD_REQUEST, 62, "SYNTAX_ERROR"),
            Refusal::NotAllowed(_) => (StatusCode::FORBIDDEN, 497, "ACCESS_DENIED"),
            Refusal::UnknownTable(_) => (StatusCode::NOT_FOUND, 60, "UNKNOWN_TABLE"),
            Refusal::Function(_) => (StatusCode::FORBIDDEN, 46, "UNKNOWN_FUNCTION"),
        };
        Self::new(status, code, name, refusal.to_string())
    }
}
