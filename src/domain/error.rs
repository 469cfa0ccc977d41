//! Errors as callers see them.

use std::time::Duration;

/// The `retry_after` while the clock is not trusted.
const CLOCK_RETRY_AFTER: Duration = Duration::from_secs(5);

/// An invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name, as the caller knows it.
    pub field: String,
    /// What is wrong and what is allowed, as readable text.
    pub message: String,
}

impl FieldError {
    /// Creates an error for a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The closed set of errors for callers. One table maps each to the codes of the transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request is invalid. A repetition fails as well.
    Invalid,
    /// The caller is not authenticated.
    Unauthenticated,
    /// The caller is not allowed to do this.
    Forbidden,
    /// The requested object does not exist.
    NotFound,
    /// Another caller has changed, or is changing, the same object.
    Conflict,
    /// A new version of an event type may refuse what the last one accepts.
    Incompatible,
    /// An idempotency key was used before for another body.
    KeyReused,
    /// The request is larger than a limit.
    TooLarge,
    /// A limit of the service is reached; the same request can succeed later.
    Exhausted,
    /// The caller, or a user of its events, is over a rate limit; the same request can succeed
    /// later. Nothing was done.
    Limited,
    /// A part of the service cannot be reached; the same request can succeed later. The request may
    /// or may not have taken effect.
    Unavailable,
    /// An internal error.
    Internal,
}

impl ErrorCode {
    /// The code in metrics and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Incompatible => "incompatible",
            Self::KeyReused => "key_reused",
            Self::TooLarge => "too_large",
            Self::Exhausted => "exhausted",
            Self::Limited => "limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

/// An error for a caller. Its text contains no internal details; those are in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of error it is.
    pub code: ErrorCode,
    /// The readable message.
    pub message: String,
    /// Every field at fault, for [`ErrorCode::Invalid`] and
    /// [`ErrorCode::Incompatible`].
    pub fields: Vec<FieldError>,
    /// How long to wait before the same request can succeed, for [`ErrorCode::Exhausted`],
    /// [`ErrorCode::Limited`] and [`ErrorCode::Unavailable`].
    pub retry_after: Option<Duration>,
    /// The exceeded limits, for [`ErrorCode::Limited`].
    pub breaches: Vec<Breach>,
}

/// A rate limit: a maximum for every window, wherever it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The limit's name, for programs.
    pub policy: &'static str,
    /// The maximum for each window.
    pub max: u32,
    /// The window.
    pub window: Duration,
}

/// An exceeded rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The limit.
    pub quota: Quota,
    /// The subject: `organization:…` or `user:…`.
    pub subject: String,
    /// The remaining allowance.
    pub left: u32,
    /// How long to wait until the request fits.
    pub wait: Duration,
}

impl Error {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new(), retry_after: None, breaches: Vec::new() }
    }

    /// An error for these invalid fields.
    pub fn invalid(fields: Vec<FieldError>) -> Self {
        Self { fields, ..Self::new(ErrorCode::Invalid, "validation failed") }
    }

    /// An error for one invalid field.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, message)])
    }

    /// The caller is not authenticated.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// The caller is not allowed to do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// The requested object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Another caller has changed, or is changing, the same object.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Conflict, message)
    }

    /// A new version may refuse, in these places, what the last one accepts.
    pub fn incompatible(fields: Vec<FieldError>) -> Self {
        let message = "the schema may refuse what the last version accepts; 'force' registers it all the same";
        Self { fields, ..Self::new(ErrorCode::Incompatible, message) }
    }

    /// An idempotency key was used before for another body.
    pub fn key_reused() -> Self {
        Self::new(ErrorCode::KeyReused, "the idempotency key was used for another body before")
    }

    /// The request is larger than a limit.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::TooLarge, message)
    }

    /// A limit is reached; retry after the given time.
    pub fn exhausted(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Exhausted, message) }
    }

    /// A rate limit is exceeded; retry after the given time.
    pub fn limited(message: impl Into<String>, retry_after: Duration, breaches: Vec<Breach>) -> Self {
        Self { retry_after: Some(retry_after), breaches, ..Self::new(ErrorCode::Limited, message) }
    }

    /// A part cannot be reached; retry after the given time.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// The clock is not trusted, so nothing can be checked against it.
    pub fn clock_in_doubt(doubt: &impl std::fmt::Display) -> Self {
        Self::unavailable(doubt.to_string(), CLOCK_RETRY_AFTER)
    }

    /// An internal error.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "internal error; the service's log has the cause")
    }
}
