//! Errors as google.rpc.Status with details.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use super::names;
use crate::domain::{Error, ErrorCode, FieldError, Quota};

/// Whose error codes they are, in google.rpc.ErrorInfo.
const DOMAIN: &str = "tallyhouse";

/// Most bytes of the fields that a status names. A status travels as a header,
/// in base64, and clients accept as little as 8 KiB of those.
const FIELDS_BYTES_MAX: usize = 3 << 10;
/// Bytes of a field beside its texts: tags and lengths.
const FIELD_BYTES: usize = 12;
/// How many fields at fault a status does not name, in google.rpc.ErrorInfo's
/// metadata.
const FIELDS_LEFT_OUT: &str = "fields_left_out";

/// The status for an error: its code as ErrorInfo, its fields as BadRequest,
/// how long to wait as RetryInfo, and a reached bound, or who is over which
/// limit, as QuotaFailure. Of many fields, the first are named, and how many
/// there are besides is said in the message and in ErrorInfo.
pub(in crate::transport) fn of(error: Error) -> Status {
    let names = names(error.code);
    let (named, left_out) = named_fields(error.fields);
    let (mut message, mut metadata) = (error.message, HashMap::new());
    if left_out > 0 {
        message.push_str(&format!("; {left_out} more fields are not named"));
        metadata.insert(FIELDS_LEFT_OUT.to_owned(), left_out.to_string());
    }
    let error = Error { message, fields: Vec::new(), ..error };
    let mut details = ErrorDetails::with_error_info(names.code, DOMAIN, metadata);
    if !named.is_empty() {
        details.set_bad_request(named);
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

/// The first fields, as many as fit, and how many are left out.
fn named_fields(fields: Vec<FieldError>) -> (Vec<FieldViolation>, usize) {
    let mut bytes = 0;
    let fits = |field: &FieldError| {
        bytes += field.field.len() + field.message.len() + FIELD_BYTES;
        bytes <= FIELDS_BYTES_MAX
    };
    let all = fields.len();
    let named: Vec<FieldViolation> = fields
        .into_iter()
        .take_while(fits)
        .map(|FieldError { field, message }| FieldViolation::new(field, message))
        .collect();
    let left_out = all - named.len();
    (named, left_out)
}

/// The status of a call that took too long, or whose request did.
pub(in crate::transport) fn deadline_exceeded(message: &str) -> Status {
    let details = ErrorDetails::with_error_info("DEADLINE_EXCEEDED", DOMAIN, HashMap::new());
    Status::with_error_details(tonic::Code::DeadlineExceeded, message, details)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;

    use super::*;
    use crate::domain::Breach;

    #[test]
    fn a_status_fits_in_the_headers_that_clients_accept() {
        let many = (0..10_000).map(|n| FieldError::new(format!("metrics[{n}].value"), "must be a number"));
        let status = of(Error::invalid(many.collect()));
        assert!(status.details().len() * 4 / 3 < 6 << 10, "{}", status.details().len());
        let details = status.get_error_details();
        let named = details.bad_request().map_or(0, |bad| bad.field_violations.len());
        let left_out = 10_000 - named;
        assert!(named > 30);
        assert!(status.message().ends_with(&format!("; {left_out} more fields are not named")), "{status}");
        let metadata = details.error_info().map(|info| info.metadata["fields_left_out"].clone());
        assert_eq!(metadata, Some(left_out.to_string()));
    }

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
        let places = vec![FieldError::new("a", "b")];
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
