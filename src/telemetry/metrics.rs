//! Metrics, in OpenTelemetry's terms, shown in Prometheus's text format.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, MeterProvider as _};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::domain::{OrgId, VerdictCounts};
use crate::ingest::index::Index;
use crate::ingest::log::Log;
use crate::ingest::outcome::{Outcome, OutcomeSink};

/// All metrics of the service.
pub struct Metrics {
    registry: Registry,
    events: Counter<u64>,
    verdicts: [[KeyValue; 1]; 5],
    provider: SdkMeterProvider,
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
        Ok(Self { registry, events, verdicts, provider })
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
