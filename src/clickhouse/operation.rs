//! Measures and traces requests to ClickHouse.

use std::future::Future;
use std::time::Instant;

use clickhouse::Client;
use opentelemetry::trace::{Status, TraceContextExt as _};
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::instruments;
use crate::trace::{self, Calls, Context, FutureExt as _, KeyValue};

/// A client whose requests carry the current trace to ClickHouse, so that its own
/// `system.opentelemetry_span_log` continues the trace.
pub(super) fn traced(client: Client) -> Client {
    let headers = trace::headers().unwrap_or_default();
    headers.iter().fold(client, |client, (name, value)| match value.to_str() {
        Ok(value) if !value.is_empty() => client.with_header(name.as_str(), value),
        _ => client, // A trace without a state has an empty one.
    })
}

/// The name of ClickHouse in OpenTelemetry's semantic conventions.
const SYSTEM: &str = "clickhouse";

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
    /// Runs the operation as part of the current call.
    pub async fn measured<T, E>(
        self,
        acting: impl Future<Output = Result<T, E>>,
        kind: impl FnOnce(&E) -> &'static str,
    ) -> Result<T, E> {
        let span = trace::child_span!(
            "request",
            otel.name = self.name,
            otel.kind = "client",
            db.system.name = SYSTEM,
            db.operation.name = self.operation
        );
        let mut measuring = Measuring::begin(self, RequestSpan::Child(span.clone()));
        let result = acting.instrument(span).await;
        measuring.error = result.as_ref().err().map(kind);
        result
    }

    /// Runs the operation on behalf of these calls, to whose spans its own is linked.
    pub(super) async fn measured_for<T, E>(
        self,
        calls: &Calls,
        acting: impl Future<Output = Result<T, E>>,
        kind: impl FnOnce(&E) -> &'static str,
    ) -> Result<T, E> {
        let Some(context) = trace::linked_span(self.name, calls, self.attributes(calls)) else {
            return self.measured(acting, kind).await;
        };
        let mut measuring = Measuring::begin(self, RequestSpan::Linked(context.clone()));
        let result = acting.with_context(context).await;
        measuring.error = result.as_ref().err().map(kind);
        result
    }

    fn attributes(self, calls: &Calls) -> Vec<KeyValue> {
        let system = KeyValue::new("db.system.name", SYSTEM);
        let mut attributes = vec![system, KeyValue::new("db.operation.name", self.operation)];
        if calls.left_out() > 0 {
            let left_out = i64::try_from(calls.left_out()).unwrap_or(i64::MAX);
            attributes.push(KeyValue::new("tallyhouse.calls.left_out", left_out));
        }
        attributes
    }
}

/// The span of an operation.
enum RequestSpan {
    /// A child of the current call's. Disabled where the call is not sampled.
    Child(Span),
    /// Linked to the calls that it serves.
    Linked(Context),
}

impl RequestSpan {
    fn fail(&self, kind: &'static str) {
        match self {
            Self::Child(span) => {
                span.set_attribute("error.type", kind);
                span.set_status(Status::error(kind));
            }
            Self::Linked(context) => {
                context.span().set_attribute(KeyValue::new("error.type", kind));
                context.span().set_status(Status::error(kind));
            }
        }
    }
}

/// An operation under way. Dropped before it has ended, it was given up.
struct Measuring {
    operation: Operation,
    begin: Instant,
    span: RequestSpan,
    error: Option<&'static str>,
}

impl Measuring {
    fn begin(operation: Operation, span: RequestSpan) -> Self {
        Self { operation, begin: Instant::now(), span, error: Some("cancelled") }
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if let Some(error) = self.error {
            self.span.fail(error);
        }
        instruments::db_operation(self.operation.operation, self.begin.elapsed(), self.error);
    }
}
