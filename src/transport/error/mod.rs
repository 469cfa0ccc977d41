//! Maps errors to their codes and statuses on the wire: one table of codes for all transports, gRPC
//! statuses in `status`, REST bodies and headers in `failure` and `rate_limit`.

pub(super) mod failure;
pub(super) mod rate_limit;
pub(super) mod status;

use axum::http::StatusCode;
use tonic::Code;

use crate::domain::ErrorCode;

/// The codes of an error.
pub(super) struct WireCodes {
    /// The gRPC status.
    pub(super) grpc: Code,
    /// The HTTP status.
    pub(super) http: StatusCode,
    /// The code in JSON and in google.rpc.ErrorInfo. Stable.
    pub(super) code: &'static str,
}

/// The codes of an error on the wire.
pub(super) const fn names(code: ErrorCode) -> WireCodes {
    let (grpc, http, code) = match code {
        ErrorCode::Invalid => (Code::InvalidArgument, StatusCode::UNPROCESSABLE_ENTITY, "VALIDATION_ERROR"),
        ErrorCode::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"),
        ErrorCode::Forbidden => (Code::PermissionDenied, StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
        ErrorCode::NotFound => (Code::NotFound, StatusCode::NOT_FOUND, "NOT_FOUND"),
        ErrorCode::Conflict => (Code::Aborted, StatusCode::CONFLICT, "CONFLICT"),
        ErrorCode::Incompatible => (Code::FailedPrecondition, StatusCode::UNPROCESSABLE_ENTITY, "INCOMPATIBLE_SCHEMA"),
        ErrorCode::KeyReused => (Code::FailedPrecondition, StatusCode::UNPROCESSABLE_ENTITY, "IDEMPOTENCY_KEY_REUSED"),
        ErrorCode::TooLarge => (Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE, "TOO_LARGE"),
        ErrorCode::Exhausted => (Code::ResourceExhausted, StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED"),
        ErrorCode::Limited => (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED"),
        ErrorCode::Unavailable => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        ErrorCode::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
    };
    WireCodes { grpc, http, code }
}
