//! Telemetry: log lines, metrics, and the export of spans.

mod calls;
mod export;
mod log;
mod metrics;
mod process;

pub(crate) use calls::known_method;
pub use calls::{CallMetrics, HttpCall};
pub use export::Export;
pub use log::{OutcomeLog, TelemetryError};
pub use metrics::{Metrics, NotificationTotals};

use crate::config::Config;
use crate::trace;

/// Starts writing log lines, and sending spans where the settings name a
/// collector. Call once, at start, within the runtime.
///
/// # Errors
/// Says what is wrong with the log's filter, or why the exporter cannot be
/// created. (An unreachable collector is not an error.)
pub fn start(config: &Config) -> Result<Export, TelemetryError> {
    let export = Export::open(config)?;
    log::init(config, export.tracer())?;
    if let Some(tracer) = export.tracer() {
        trace::install(tracer, config.trace_ratio);
    }
    export.log();
    Ok(export)
}
