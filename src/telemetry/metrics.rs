//! Metrics in OpenTelemetry's model, exported in Prometheus's text format.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::{Counter, Gauge, MeterProvider as _};
use opentelemetry::{KeyValue, global};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;

use super::calls::CallMetrics;
use super::process;
use crate::clock::ArrivalClock;
use crate::deliveries::subscriptions::{DeliveryTotals, HandlerSpec, Subscriptions};
use crate::domain::{AuditedHour, HourResult, OrgId, Rollup, Timestamp, VerdictCounts};
use crate::health::{Health, ReasonCode};
use tallyhouse_ledger::LedgerStatus;

use crate::ingest::index::Index;
use crate::ingest::outcome::{Outcome, OutcomeSink};
use crate::instruments::Instruments;
use crate::limits::RateLimits;
use crate::log::{EventLog, Segments};

/// All metrics of the service.
pub struct Metrics {
    registry: Registry,
    events: Counter<u64>,
    verdicts: [[KeyValue; 1]; 5],
    audit: AuditMetrics,
    calls: CallMetrics,
    instruments: Instruments,
}

/// The notifications of the ticketing catalogue, as they are when they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct NotificationTotals {
    /// Notifications that are still to be delivered.
    pub pending: u64,
    /// Notifications that are no longer sent.
    pub given_up: u64,
    /// How long the oldest pending one has been waiting; 0 if there is none.
    pub lag: Duration,
    /// Attempts that a receiver took.
    pub attempts_delivered: u64,
    /// Attempts that failed and are repeated.
    pub attempts_failed: u64,
    /// Attempts that failed and were the last.
    pub attempts_given_up: u64,
}

/// What audits count.
struct AuditMetrics {
    hours: Counter<u64>,
    found: Counter<u64>,
    repaired: Counter<u64>,
    last: Gauge<u64>,
}

impl AuditMetrics {
    /// All series from 0: one that begins at 1 is no rise for Prometheus.
    fn new(instruments: &Instruments) -> Self {
        let new = Self {
            hours: instruments.counter("tallyhouse.audit.checks"),
            found: instruments.counter("tallyhouse.audit.found"),
            repaired: instruments.counter("tallyhouse.audit.repaired"),
            last: instruments.gauge("tallyhouse.audit.last_timestamp"),
        };
        new.hours.add(0, &[KeyValue::new("result", HourResult::Consistent.as_str())]);
        new.last.record(0, &[]);
        for (counter, rollup) in
            [&new.found, &new.repaired].into_iter().flat_map(|counter| Rollup::ALL.map(|of| (counter, of)))
        {
            for direction in ["under", "over"] {
                counter.add(0, &[KeyValue::new("rollup", rollup.as_str()), KeyValue::new("direction", direction)]);
            }
        }
        new
    }
}

const SECONDS_PER_DAY: u64 = 86_400;

/// Counts events that a rollup counts wrongly.
fn count_wrong(counter: &Counter<u64>, rollup: Rollup, under: u64, over: u64) {
    for (events, direction) in [(under, "under"), (over, "over")] {
        if events > 0 {
            let labels = [KeyValue::new("rollup", rollup.as_str()), KeyValue::new("direction", direction)];
            counter.add(events, &labels);
        }
    }
}

/// The labels of the build.
fn build() -> [KeyValue; 2] {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    [KeyValue::new("version", env!("CARGO_PKG_VERSION")), KeyValue::new("profile", profile)]
}

impl Metrics {
    /// Metrics that count from 0, shown to every room.
    ///
    /// # Errors
    /// Says why the exporter cannot be made.
    pub fn new() -> Result<Self, String> {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .map_err(|error| error.to_string())?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        global::set_meter_provider(provider.clone());
        let instruments = Instruments(provider.meter("tallyhouse"));
        let events = instruments.counter("tallyhouse.ingest.events");
        let verdicts = ["accepted", "duplicate", "conflict", "rejected", "undecided"]
            .map(|verdict| [KeyValue::new("verdict", verdict)]);
        verdicts.iter().for_each(|verdict| events.add(0, verdict));
        let audit = AuditMetrics::new(&instruments);
        let calls = CallMetrics::new(&instruments);
        process::observe(&instruments);
        instruments.gauge("tallyhouse.build.info").record(1, &build());
        Ok(Self { registry, events, verdicts, audit, calls, instruments })
    }

    /// Registers the metrics of the log and the index.
    pub fn observe(&self, log: &dyn EventLog, index: &Arc<Index>, clock: &Arc<ArrivalClock>) {
        type Figure = (&'static str, fn(&Segments) -> u64);
        let figures: [Figure; 4] = [
            ("tallyhouse.log.segments", |segments| segments.backlog() as u64),
            ("tallyhouse.log.segments.parked", |segments| segments.parked() as u64),
            ("tallyhouse.log.events", Segments::rows),
            ("tallyhouse.log.size", Segments::bytes),
        ];
        for (name, read) in figures {
            let segments = Arc::clone(log.segments());
            self.instruments.observed(name, move || read(&segments));
        }
        let (segments, clock) = (Arc::clone(log.segments()), Arc::clone(clock));
        self.instruments.observed_seconds("tallyhouse.log.age", move || {
            let now = clock.now();
            let age = now.millis().saturating_sub(segments.watermark(now).millis());
            u32::try_from(age).ok().map(|millis| f64::from(millis) / 1_000.0)
        });
        let ids = Arc::clone(index);
        self.instruments.observed("tallyhouse.index.ids", move || ids.ids() as u64);
        self.observe_ledger(index);
    }

    fn observe_ledger(&self, index: &Arc<Index>) {
        type Figure = (&'static str, fn(&LedgerStatus) -> u64);
        let figures: [Figure; 6] = [
            ("tallyhouse.ledger.ids", |status| status.ids),
            ("tallyhouse.ledger.runs", |status| status.runs as u64),
            ("tallyhouse.ledger.size", |status| status.disk_bytes),
            ("tallyhouse.ledger.memory", |status| status.memory_bytes),
            ("tallyhouse.ledger.complete", |status| u64::from(status.is_complete)),
            ("tallyhouse.ledger.floor_timestamp", |status| u64::from(status.floor.0) * SECONDS_PER_DAY),
        ];
        for (name, read) in figures {
            let ledger = Arc::clone(index.ledger());
            self.instruments.observed(name, move || read(&ledger.status()));
        }
    }

    /// Registers the metrics of rate limits.
    pub fn observe_limits(&self, limits: &Arc<RateLimits>) {
        let of = Arc::clone(limits);
        #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        self.instruments.counted_by("tallyhouse.limits.refusals", move |show| {
            of.refusals().for_each(|(policy, count)| show(count as f64, &[KeyValue::new("policy", policy)]));
        });
        let of = Arc::clone(limits);
        self.instruments.observed_by("tallyhouse.limits.subjects", move |show| {
            of.subjects().for_each(|(policy, count)| show(count as u64, &[KeyValue::new("policy", policy)]));
        });
    }

    /// Registers the metrics of subscriptions.
    pub fn observe_deliveries(&self, subscriptions: &Arc<Subscriptions>) {
        type Figure = (&'static str, fn(&DeliveryTotals) -> u64);
        let figures: [Figure; 2] = [
            ("tallyhouse.deliveries.dead_letters", |totals| totals.dead_letters),
            ("tallyhouse.deliveries.missed", |totals| totals.missing),
        ];
        for (name, read) in figures {
            let of = Arc::clone(subscriptions);
            self.instruments.observed(name, move || read(&of.totals()));
        }
        let of = Arc::clone(subscriptions);
        self.instruments.observed_by("tallyhouse.deliveries.subscriptions", move |show| {
            let by_handler = of.totals().by_handler;
            for kind in HandlerSpec::KINDS {
                let count = by_handler.get(kind).copied().unwrap_or_default();
                show(count, &[KeyValue::new("handler", kind)]);
            }
        });
        let of = Arc::clone(subscriptions);
        self.instruments.observed_by("tallyhouse.deliveries.waiting", move |show| {
            let DeliveryTotals { waiting, buffered, in_flight, .. } = of.totals();
            let ready = waiting.saturating_sub(buffered + in_flight);
            for (state, count) in [("buffered", buffered), ("in_flight", in_flight), ("ready", ready)] {
                show(count, &[KeyValue::new("state", state)]);
            }
        });
        let of = Arc::clone(subscriptions);
        self.instruments.observed_seconds("tallyhouse.deliveries.lag", move || {
            u32::try_from(of.totals().lag_ms).ok().map(|millis| f64::from(millis) / 1_000.0)
        });
        self.observe_delivered(subscriptions);
    }

    #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    fn observe_delivered(&self, subscriptions: &Arc<Subscriptions>) {
        let of = Arc::clone(subscriptions);
        self.instruments.counted_by("tallyhouse.deliveries.events", move |show| {
            let DeliveryTotals { processed, failed, .. } = of.totals();
            for (result, count) in [("processed", processed), ("failed", failed)] {
                show(count as f64, &[KeyValue::new("result", result)]);
            }
        });
        let of = Arc::clone(subscriptions);
        self.instruments.counted_by("tallyhouse.deliveries.retries", move |show| show(of.totals().retries as f64, &[]));
        let of = Arc::clone(subscriptions);
        self.instruments.counted_by("tallyhouse.deliveries.skipped", move |show| show(of.totals().skipped as f64, &[]));
    }

    /// Registers the metrics of the catalogue's notifications, which `read` tells.
    pub fn observe_notifications(&self, read: impl Fn() -> NotificationTotals + Send + Sync + 'static) {
        let read = Arc::new(read);
        let of = Arc::clone(&read);
        self.instruments.observed_by("tallyhouse.ticketing.notifications", move |show| {
            let NotificationTotals { pending, given_up, .. } = of();
            for (state, count) in [("pending", pending), ("given_up", given_up)] {
                show(count, &[KeyValue::new("state", state)]);
            }
        });
        let of = Arc::clone(&read);
        self.instruments
            .observed_seconds("tallyhouse.ticketing.notifications.lag", move || Some(of().lag.as_secs_f64()));
        #[allow(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        self.instruments.counted_by("tallyhouse.ticketing.notification.attempts", move |show| {
            let NotificationTotals { attempts_delivered, attempts_failed, attempts_given_up, .. } = read();
            let results =
                [("delivered", attempts_delivered), ("failed", attempts_failed), ("given_up", attempts_given_up)];
            for (result, count) in results {
                show(count as f64, &[KeyValue::new("result", result)]);
            }
        });
    }

    /// Registers the metrics of health reasons.
    pub fn observe_health(&self, health: &Arc<Health>) {
        let health = Arc::clone(health);
        self.instruments.observed_by("tallyhouse.health.reason", move |show| {
            let reasons = health.reasons();
            for code in ReasonCode::ALL {
                let holds = reasons.iter().any(|reason| reason.code == *code);
                show(u64::from(holds), &[KeyValue::new("code", code.as_str())]);
            }
        });
    }

    /// Registers the metric of ClickHouse's availability.
    pub fn observe_clickhouse(&self, is_up: watch::Receiver<bool>) {
        self.instruments.observed("tallyhouse.clickhouse.up", move || u64::from(*is_up.borrow()));
    }

    /// Registers the metric of calls in flight.
    pub fn observe_calls(&self, in_flight: impl Fn() -> usize + Send + Sync + 'static) {
        self.instruments.observed("tallyhouse.requests.in_flight", move || in_flight() as u64);
    }

    /// Calls, as they end.
    pub const fn calls(&self) -> &CallMetrics {
        &self.calls
    }

    /// Records an audited hour.
    pub fn audited(&self, audited: &AuditedHour, now: Timestamp) {
        let count = |result: HourResult, hours: u64| {
            if hours > 0 {
                self.audit.hours.add(hours, &[KeyValue::new("result", result.as_str())]);
            }
        };
        count(HourResult::Consistent, audited.organizations.saturating_sub(audited.findings.len() as u64));
        for finding in &audited.findings {
            count(finding.result, 1);
            for found in &finding.found {
                count_wrong(&self.audit.found, found.rollup, found.under, found.over);
            }
        }
        self.audit.last.record(u64::try_from(now.millis() / 1_000).unwrap_or_default(), &[]);
    }

    /// Records the changes of a repair.
    pub fn repaired(&self, rollup: Rollup, added: u64, taken: u64) {
        count_wrong(&self.audit.repaired, rollup, added, taken);
    }

    /// All metrics, in Prometheus's text format.
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
