//! Errors as google.rpc.Status, with details for programs.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::domain::{Error, ErrorCode, Quota};
use crate::transport::error::names;

/// Whose error codes they are, in google.rpc.ErrorInfo.
const DOMAIN: &str = "tallyhouse";

/// The status for an error: its code as ErrorInfo, its fields as BadRequest,
/// how long to wait as RetryInfo, and a reached bound, or who is over which
/// limit, as QuotaFailure.
pub(in crate::transport) fn of(error: Error) -> Status {
    let names = names(error.code);
    let mut details = ErrorDetails::with_error_info(names.code, DOMAIN, HashMap::new());
    if !error.fields.is_empty() {
        let violation = |field: crate::domain::FieldError| FieldViolation::new(field.field, field.message);
        details.set_bad_request(error.fields.into_iter().map(violation).collect::<Vec<_>>());
    }
    if let Some(wait) = error.retry_after {
        details.set_retry_info(Some(wait));
    }
    if error.code == ErrorCode::Exhausted {
        details.add_quota_failure_violation("service", &error.message);
    }
    for breach in &error.breaches {
        let Quota { policy, max, window } = breach.quota;
        let description = format!("{policy}: at most {max} in {} seconds", window.as_secs());
        details.add_quota_failure_violation(&breach.subject, description);
    }
    Status::with_error_details(names.grpc, error.message, details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::domain::Breach;

    #[test]
    fn details_say_what_programs_need() {
        let check = |error: Error, code: Code, reason: &str, fields: &[&str], wait: Option<u64>, quota: bool| {
            let status = of(error);
            assert_eq!(status.code(), code);
            let details = status.get_error_details();
            assert_eq!(details.error_info().map(|info| (&*info.reason, &*info.domain)), Some((reason, DOMAIN)));
            let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
            assert_eq!(violations.iter().map(|violation| &*violation.field).collect::<Vec<_>>(), fields);
            let retry = details.retry_info().and_then(|info| info.retry_delay);
            assert_eq!(retry, wait.map(Duration::from_secs));
            assert_eq!(details.quota_failure().is_some(), quota);
        };
        let second = Duration::from_secs(1);
        check(Error::invalid_field("a", "b"), Code::InvalidArgument, "VALIDATION_ERROR", &["a"], None, false);
        check(Error::unauthenticated("a"), Code::Unauthenticated, "UNAUTHENTICATED", &[], None, false);
        check(Error::forbidden("a"), Code::PermissionDenied, "PERMISSION_DENIED", &[], None, false);
        check(Error::not_found("a"), Code::NotFound, "NOT_FOUND", &[], None, false);
        check(Error::conflict("a"), Code::Aborted, "CONFLICT", &[], None, false);
        let places = vec![crate::domain::FieldError::new("a", "b")];
        check(Error::incompatible(places), Code::FailedPrecondition, "INCOMPATIBLE_SCHEMA", &["a"], None, false);
        check(Error::key_reused(), Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED", &[], None, false);
        check(Error::too_large("a"), Code::InvalidArgument, "TOO_LARGE", &[], None, false);
        check(Error::exhausted("a", second), Code::ResourceExhausted, "OVERLOADED", &[], Some(1), true);
        let quota = Quota { policy: "user-events", max: 10, window: second };
        let breach = Breach { quota, subject: "user:ann".to_owned(), left: 0, wait: second };
        check(Error::limited("a", second, vec![breach]), Code::ResourceExhausted, "RATE_LIMITED", &[], Some(1), true);
        check(Error::unavailable("a", second), Code::Unavailable, "UNAVAILABLE", &[], Some(1), false);
        check(Error::internal(), Code::Internal, "INTERNAL", &[], None, false);
    }
}
