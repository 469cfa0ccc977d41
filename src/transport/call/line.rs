//! The log line of a call.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tonic::Code;

use super::{Call, Ended};
use crate::config::{Config, RequestLog};

/// Writes lines: of every call that failed, and of as many others as is
/// configured.
pub(super) struct CallLog {
    which: RequestLog,
    /// Lines of good calls in a second; 0: any number.
    per_second: u64,
    started: Instant,
    /// The last second and how many good calls it has had.
    second: AtomicU64,
    in_second: AtomicU64,
}

impl CallLog {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            which: config.request_log,
            per_second: config.request_log_lines_per_second.into(),
            started: Instant::now(),
            second: AtomicU64::new(0),
            in_second: AtomicU64::new(0),
        }
    }

    /// A call has ended.
    pub(super) fn write(&self, call: &Call, ended: &Ended) {
        let is_wanted = match self.which {
            RequestLog::None => false,
            RequestLog::Errors => ended.has_failed(),
            RequestLog::All => ended.has_failed() || self.has_room(self.started.elapsed()),
        };
        if is_wanted {
            write(call, ended);
        }
    }

    /// Whether a good call of this moment has a line. Those of a second that
    /// had none are told of in one line, when the next good call comes.
    fn has_room(&self, now: Duration) -> bool {
        if self.per_second == 0 {
            return true;
        }
        let now = now.as_secs();
        if self.second.swap(now, Ordering::Relaxed) != now {
            let left_out = self.in_second.swap(0, Ordering::Relaxed).saturating_sub(self.per_second);
            if left_out > 0 {
                tracing::info!(target: "tallyhouse::request", left_out, "further successful calls were not logged");
            }
        }
        self.in_second.fetch_add(1, Ordering::Relaxed) < self.per_second
    }
}

fn write(call: &Call, ended: &Ended) {
    let (method, route) = (call.method.as_str(), call.route());
    // A path that is none may hold anything, but no query: that is not shown.
    let path = route.unwrap_or_else(|| call.uri.path());
    let path = path.get(..PATH_BYTES_MAX).unwrap_or(path);
    let org_id = call.organization.get().map(crate::domain::OrgId::as_str);
    let (status, grpc_status) = (ended.status, ended.grpc_status.map(code_name));
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a call")]
    let duration_ms = ended.took.as_micros() as f64 / 1_000.0;
    let gone = ended.is_broken_off.then_some(true);
    tracing::info!(
        target: "tallyhouse::request",
        method, path, status, grpc_status, duration_ms, org_id, gone, "call"
    );
}

/// Longest path that is shown whole.
const PATH_BYTES_MAX: usize = 200;

/// A status's name, as in google.rpc.Code.
pub(super) const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_good_calls_of_a_second_have_lines() {
        let config = Config { request_log_lines_per_second: 3, ..Config::default() };
        let lines = CallLog::new(&config);
        let of_second = |second: u64| (0..5).filter(|_| lines.has_room(Duration::from_secs(second))).count();
        assert_eq!((of_second(1), of_second(1), of_second(2)), (3, 0, 3));
        let unbounded = CallLog::new(&Config { request_log_lines_per_second: 0, ..config });
        assert!((0..1_000).all(|_| unbounded.has_room(Duration::ZERO)));
    }
}
