//! Log lines on standard error.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_sdk::trace::SdkTracer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::config::{Config, LogFormat};
use crate::domain::{OrgId, VerdictCounts};
use crate::ingest::outcome::{Outcome, OutcomeSink};
use crate::trace;

/// Whose own lines are only wanted when something is wrong, unless the filter
/// names them.
const EXPORTER: &str = "opentelemetry";

/// Why telemetry cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TelemetryError(pub(super) String);

/// Starts writing log lines as configured, and exporting spans by this tracer.
///
/// # Errors
/// Says what is wrong with the filter.
pub(super) fn init(config: &Config, tracer: Option<SdkTracer>) -> Result<(), TelemetryError> {
    let filter = filter(&config.log_filter)?;
    let lines = fmt::layer().with_writer(io::stderr as fn() -> io::Stderr);
    match config.log_format {
        LogFormat::Json => begin(lines.json(), filter, tracer),
        LogFormat::Text => begin(lines.with_ansi(io::stderr().is_terminal()).with_target(false), filter, tracer),
    }
    .map_err(|error| TelemetryError(error.to_string()))
}

/// Which lines are wanted: the setting, and what holds unless it names the exporter.
fn filter(setting: &str) -> Result<EnvFilter, TelemetryError> {
    let mut directives = setting.to_owned();
    if !directives.contains(EXPORTER) {
        directives.push_str(&format!(",{EXPORTER}=warn,{EXPORTER}_sdk=warn,{EXPORTER}_otlp=warn"));
    }
    directives.push_str(&format!(",{}=off", trace::TARGET));
    EnvFilter::try_new(&directives).map_err(|error| TelemetryError(format!("the setting log_filter is wrong: {error}")))
}

fn begin<L>(lines: L, filter: EnvFilter, tracer: Option<SdkTracer>) -> Result<(), TryInitError>
where
    L: Layer<Registry> + Send + Sync + 'static,
{
    match tracer {
        None => Registry::default().with(lines).with(filter).try_init(),
        Some(tracer) => Registry::default().with(lines.with_filter(filter)).with(spans(tracer)).try_init(),
    }
}

/// Exports the spans of sampled calls, and sees no others. They have the attributes that they are given and no more:
/// not where in the code they were made, on which thread, or how long nothing was done.
fn spans<S>(tracer: SdkTracer) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Static, and with a level: what it leaves out costs as little as without it.
        .with_filter(Targets::new().with_target(trace::TARGET, LevelFilter::INFO))
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
