//! Metrics, in OpenTelemetry's terms, shown in Prometheus's text format.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::domain::{AuditedHour, HourResult, OrgId, Rollup, Timestamp, VerdictCounts};
use crate::ingest::index::Index;
use crate::ingest::log::Log;
use crate::ingest::outcome::{Outcome, OutcomeSink};

/// All metrics of the service.
pub struct Metrics {
    registry: Registry,
    events: Counter<u64>,
    verdicts: [[KeyValue; 1]; 5],
    audit: AuditMetrics,
    provider: SdkMeterProvider,
}

/// What audits count.
struct AuditMetrics {
    hours: Counter<u64>,
    found: Counter<u64>,
    repaired: Counter<u64>,
    last: Gauge<u64>,
}

impl AuditMetrics {
    fn new(meter: &Meter) -> Self {
        let counter = |name: &'static str, description: &'static str| {
            meter.u64_counter(name).with_description(description).build()
        };
        Self {
            hours: counter("tallyhouse.audit.hours", "Hours of organisations that were audited, by result."),
            found: counter("tallyhouse.audit.found", "Events counted too few or too many when found, by rollup."),
            repaired: counter("tallyhouse.audit.repaired", "Events added or taken by repairs, by rollup."),
            last: meter
                .u64_gauge("tallyhouse.audit.last")
                .with_description("When an hour was last audited, in seconds since 1970.")
                .build(),
        }
    }
}

/// Counts events that a rollup counts wrongly.
fn count_wrong(counter: &Counter<u64>, rollup: Rollup, under: u64, over: u64) {
    for (events, direction) in [(under, "under"), (over, "over")] {
        if events > 0 {
            let labels = [KeyValue::new("rollup", rollup.as_str()), KeyValue::new("direction", direction)];
            counter.add(events, &labels);
        }
    }
}

impl Metrics {
    /// Metrics that count from 0.
    ///
    /// # Errors
    /// Says why the exporter cannot be made.
    pub fn new() -> Result<Self, String> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .build()
            .map_err(|error| error.to_string())?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("tallyhouse");
        let events = meter.u64_counter("tallyhouse.ingest.events").with_description("Events by verdict.").build();
        let verdicts = ["accepted", "duplicate", "conflict", "rejected", "undecided"]
            .map(|verdict| [KeyValue::new("verdict", verdict)]);
        let audit = AuditMetrics::new(&meter);
        Ok(Self { registry, events, verdicts, audit, provider })
    }

    /// Shows the state of the log and the index from now on.
    pub fn observe(&self, log: &Log, index: &Arc<Index>) {
        let meter = self.provider.meter("tallyhouse");
        let gauge = |name: &'static str, description: &'static str, read: Box<dyn Fn() -> usize + Send + Sync>| {
            meter
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |observer| observer.observe(read() as u64, &[]))
                .build();
        };
        let segments = [(); 4].map(|()| Arc::clone(log.segments()));
        let [backlog, parked, rows, bytes] = segments;
        gauge("tallyhouse.log.segments", "Sealed segments not in ClickHouse.", Box::new(move || backlog.backlog()));
        gauge("tallyhouse.log.segments.parked", "Segments that ClickHouse refused.", Box::new(move || parked.parked()));
        gauge(
            "tallyhouse.log.events",
            "Events not in ClickHouse.",
            Box::new(move || usize::try_from(rows.rows()).unwrap_or(usize::MAX)),
        );
        gauge(
            "tallyhouse.log.size",
            "Bytes of the log on disk.",
            Box::new(move || usize::try_from(bytes.bytes()).unwrap_or(usize::MAX)),
        );
        let ids = Arc::clone(index);
        gauge("tallyhouse.index.ids", "Event ids held in memory.", Box::new(move || ids.ids()));
    }

    /// An hour was audited.
    pub fn audited(&self, audited: &AuditedHour, now: Timestamp) {
        let count = |result: HourResult, hours: u64| {
            if hours > 0 {
                self.audit.hours.add(hours, &[KeyValue::new("result", result.as_str())]);
            }
        };
        count(HourResult::Consistent, audited.organisations.saturating_sub(audited.findings.len() as u64));
        for finding in &audited.findings {
            count(finding.result, 1);
            for found in &finding.found {
                count_wrong(&self.audit.found, found.rollup, found.under, found.over);
            }
        }
        self.audit.last.record(u64::try_from(now.millis() / 1_000).unwrap_or_default(), &[]);
    }

    /// The audit has added events to a rollup, and taken some away.
    pub fn repaired(&self, rollup: Rollup, added: u64, taken: u64) {
        count_wrong(&self.audit.repaired, rollup, added, taken);
    }

    /// Everything, in Prometheus's text format.
    ///
    /// # Errors
    /// Says why it cannot be written.
    pub fn text(&self) -> Result<String, String> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|error| error.to_string())
    }
}

impl OutcomeSink for Metrics {
    fn counted(&self, _org_id: &OrgId, counts: VerdictCounts) {
        let VerdictCounts { accepted, duplicate, conflict, rejected, undecided } = counts;
        for (count, verdict) in [accepted, duplicate, conflict, rejected, undecided].into_iter().zip(&self.verdicts) {
            if count > 0 {
                self.events.add(count.into(), verdict);
            }
        }
    }

    fn wants_outcomes(&self) -> bool {
        false
    }

    fn happened(&self, _outcomes: &[Arc<Outcome>]) {}
}
