//! What the service says about itself: log lines and metrics.

mod log;
mod metrics;

pub use log::{OutcomeLog, TelemetryError, init};
pub use metrics::Metrics;
