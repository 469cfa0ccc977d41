//! Measures and traces requests to ClickHouse.

use std::future::Future;
use std::time::Instant;

use clickhouse::Client;

use crate::instruments;
use crate::trace::{self, Calls, FutureExt as _, KeyValue, Part};

/// A client whose requests carry the current trace to ClickHouse, so that its own
/// `system.opentelemetry_span_log` continues the trace.
pub(super) fn traced(client: Client) -> Client {
    trace::headers().into_iter().fold(client, |client, (name, value)| client.with_header(name, value))
}

/// One kind of request.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The name of its span: the operation and its target.
    pub name: &'static str,
    /// What it does.
    pub operation: &'static str,
}

/// A segment.
pub(super) const INSERT: Operation = Operation { name: "INSERT events", operation: "INSERT" };
/// Late events.
pub(super) const LOOKUP: Operation = Operation { name: "LOOKUP events", operation: "LOOKUP" };
/// An answer.
pub const SELECT: Operation = Operation { name: "SELECT", operation: "SELECT" };

impl Operation {
    /// Runs the operation, on behalf of the current call or of these.
    pub async fn measured<T, E>(
        self,
        calls: &Calls,
        acting: impl Future<Output = Result<T, E>>,
        kind: impl FnOnce(&E) -> &'static str,
    ) -> Result<T, E> {
        let mut measuring = Measuring::begin(self, calls);
        let context = measuring.part.as_ref().map(|part| part.context().clone());
        let result = match context {
            Some(context) => acting.with_context(context).await,
            None => acting.await,
        };
        measuring.error = result.as_ref().err().map(kind);
        result
    }
}

/// An operation under way. Dropped before it has ended, it was given up.
struct Measuring {
    operation: Operation,
    begin: Instant,
    part: Option<Part>,
    error: Option<&'static str>,
}

impl Measuring {
    fn begin(operation: Operation, calls: &Calls) -> Self {
        let part = trace::request(operation.name, calls);
        if let Some(part) = &part {
            part.note(KeyValue::new("db.system.name", "clickhouse"));
            part.note(KeyValue::new("db.operation.name", operation.operation));
            if calls.left_out() > 0 {
                let left_out = i64::try_from(calls.left_out()).unwrap_or(i64::MAX);
                part.note(KeyValue::new("tallyhouse.calls.left_out", left_out));
            }
        }
        Self { operation, begin: Instant::now(), part, error: Some("cancelled") }
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if let (Some(part), Some(error)) = (&self.part, self.error) {
            part.failed(error);
        }
        instruments::db_operation(self.operation.operation, self.begin.elapsed(), self.error);
    }
}
