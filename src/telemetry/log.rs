//! Log lines on standard error.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};
use crate::domain::{OrgId, VerdictCounts};
use crate::ingest::outcome::{Outcome, OutcomeSink};

/// Whose own lines are only wanted when something is wrong, unless the filter
/// names them.
const EXPORTER: &str = "opentelemetry";

/// Why telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(pub(super) String);

/// Starts writing log lines as configured. Call once, at start.
///
/// # Errors
/// Says what is wrong with the filter.
pub fn init(config: &Config) -> Result<(), TelemetryError> {
    let mut directives = config.log_filter.clone();
    if !directives.contains(EXPORTER) {
        directives.push_str(&format!(",{EXPORTER}=warn,{EXPORTER}_sdk=warn,{EXPORTER}_otlp=warn"));
    }
    let filter = EnvFilter::try_new(&directives)
        .map_err(|error| TelemetryError(format!("the setting log_filter is wrong: {error}")))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match config.log_format {
        LogFormat::Json => lines.json().try_init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
    begun.map_err(|error| TelemetryError(error.to_string()))
}

/// Writes a line for batches in which something was wrong: at most one a
/// second, so that a bad producer cannot flood the log. The metrics count them
/// all.
#[derive(Default)]
pub struct OutcomeLog {
    last_line_second: AtomicU64,
}

impl OutcomeSink for OutcomeLog {
    fn counted(&self, org_id: &OrgId, counts: VerdictCounts) {
        let VerdictCounts { accepted, duplicate, conflict, rejected, undecided } = counts;
        if conflict + rejected + undecided == 0 {
            return;
        }
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if self.last_line_second.swap(second, Ordering::Relaxed) != second {
            let org_id = org_id.as_str();
            tracing::info!(org_id, accepted, duplicate, conflict, rejected, undecided, "not all events were accepted");
        }
    }

    fn wants_outcomes(&self) -> bool {
        false
    }

    fn happened(&self, _outcomes: &[Arc<Outcome>]) {}
}
