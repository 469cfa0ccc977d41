//! Errors as callers see them.

use std::time::Duration;

/// How long a caller is told to wait while the service does not know the time.
const CLOCK_RETRY_AFTER: Duration = Duration::from_secs(5);

/// One thing wrong with one field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// The field's name, as the caller knows it.
    pub field: String,
    /// What is wrong and what is allowed, for a person to read.
    pub message: String,
}

impl FieldError {
    /// Says what is wrong with a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The closed set of things that can go wrong for a caller. Each transport
/// maps every one of them to its own code, in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// The request is wrong, and stays wrong however often it is sent.
    Invalid,
    /// The caller has not shown who it is.
    Unauthenticated,
    /// The caller may not do this.
    Forbidden,
    /// What was asked for does not exist.
    NotFound,
    /// Somebody else has changed, or is changing, the same thing.
    Conflict,
    /// A new version of an event type may refuse what the last one accepts.
    Incompatible,
    /// An idempotency key was used before for another body.
    KeyReused,
    /// The request is larger than a limit.
    TooLarge,
    /// A bound of the service is reached; the same request can succeed later.
    Exhausted,
    /// The caller, or a user it speaks for, is over a rate limit; the same
    /// request can succeed later. Nothing of it has happened.
    Limited,
    /// A part of the service cannot be reached; the same request can succeed
    /// later. What it asked for may or may not have happened.
    Unavailable,
    /// The service is at fault.
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

/// An error to hand to a caller. Its text is safe to show: internal detail
/// has gone to the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of error it is.
    pub code: ErrorCode,
    /// What went wrong, for a person to read.
    pub message: String,
    /// Every field at fault, for [`ErrorCode::Invalid`] and
    /// [`ErrorCode::Incompatible`].
    pub fields: Vec<FieldError>,
    /// How long to wait before the same request has a chance, for
    /// [`ErrorCode::Exhausted`], [`ErrorCode::Limited`] and
    /// [`ErrorCode::Unavailable`].
    pub retry_after: Option<Duration>,
    /// Who is over which limit, for [`ErrorCode::Limited`].
    pub breaches: Vec<Breach>,
}

/// A rate limit: so many in each window, wherever it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The limit's name, for programs.
    pub policy: &'static str,
    /// How many.
    pub max: u32,
    /// The window.
    pub window: Duration,
}

/// Somebody is over a rate limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The limit.
    pub quota: Quota,
    /// Who: `organization:…` or `user:…`.
    pub subject: String,
    /// How many would still have fitted.
    pub left: u32,
    /// How long to wait until what was asked for fits.
    pub wait: Duration,
}

impl Error {
    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), fields: Vec::new(), retry_after: None, breaches: Vec::new() }
    }

    /// The request is wrong in these fields.
    pub fn invalid(fields: Vec<FieldError>) -> Self {
        Self { fields, ..Self::new(ErrorCode::Invalid, "validation failed") }
    }

    /// The request is wrong in one field.
    pub fn invalid_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid(vec![FieldError::new(field, message)])
    }

    /// The caller has not shown who it is.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthenticated, message)
    }

    /// The caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// What was asked for does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Somebody else has changed, or is changing, the same thing.
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

    /// A bound is reached; try again after the given time.
    pub fn exhausted(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Exhausted, message) }
    }

    /// Somebody is over a rate limit; try again after the given time.
    pub fn limited(message: impl Into<String>, retry_after: Duration, breaches: Vec<Breach>) -> Self {
        Self { retry_after: Some(retry_after), breaches, ..Self::new(ErrorCode::Limited, message) }
    }

    /// A part cannot be reached; try again after the given time.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(ErrorCode::Unavailable, message) }
    }

    /// The service does not know the time: nothing can be judged by it now.
    pub fn clock_in_doubt(doubt: &impl std::fmt::Display) -> Self {
        Self::unavailable(doubt.to_string(), CLOCK_RETRY_AFTER)
    }

    /// The service is at fault.
    pub fn internal() -> Self {
        Self::new(ErrorCode::Internal, "internal error; the service's log has the cause")
    }
}
