//! Telemetry: log lines, metrics, and the export of spans.

mod calls;
mod export;
mod log;
mod metrics;
mod process;

pub(crate) use calls::known_method;
pub use calls::{CallMetrics, HttpCall};
pub use export::Export;
pub use log::{OutcomeLog, TelemetryError, init};
pub use metrics::Metrics;
