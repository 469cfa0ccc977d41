//! Instruments of all modules. [`crate::telemetry`] exports them.
//!
//! Every instrument is described in the [`catalogue`], from which `docs/metrics.md` is generated.

pub mod catalogue;

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use opentelemetry::{KeyValue, global};

use catalogue::{CATALOGUE, Described};

/// Bounds of durations, in seconds.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of numbers of events.
const EVENTS: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];

/// Creates instruments as the catalogue describes them.
pub struct Instruments(pub Meter);

impl Instruments {
    /// The instruments of the service. Use it only after the meter provider has been installed;
    /// earlier instruments record nothing.
    pub fn global() -> Self {
        Self(global::meter("tallyhouse"))
    }

    /// A counter.
    pub fn counter(&self, name: &'static str) -> Counter<u64> {
        let Described { unit, meaning, .. } = described(name);
        self.0.u64_counter(name).with_unit(unit).with_description(meaning).build()
    }

    /// A gauge that is set.
    pub fn gauge(&self, name: &'static str) -> Gauge<u64> {
        let Described { unit, meaning, .. } = described(name);
        self.0.u64_gauge(name).with_unit(unit).with_description(meaning).build()
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &'static str) -> Histogram<f64> {
        let Described { unit, meaning, .. } = described(name);
        let histogram = self.0.f64_histogram(name).with_boundaries(SECONDS.to_vec());
        histogram.with_unit(unit).with_description(meaning).build()
    }

    /// A histogram of numbers of events.
    pub fn events(&self, name: &'static str) -> Histogram<u64> {
        let Described { unit, meaning, .. } = described(name);
        let histogram = self.0.u64_histogram(name).with_boundaries(EVENTS.to_vec());
        histogram.with_unit(unit).with_description(meaning).build()
    }

    /// A gauge that is read when it is shown.
    pub fn observed(&self, name: &'static str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.observed_by(name, move |show| show(read(), &[]));
    }

    /// The same, with a label.
    pub fn observed_by(&self, name: &'static str, read: impl Fn(&dyn Fn(u64, &[KeyValue])) + Send + Sync + 'static) {
        let Described { unit, meaning, .. } = described(name);
        let gauge = self.0.u64_observable_gauge(name).with_unit(unit).with_description(meaning);
        gauge.with_callback(move |observer| read(&|value, labels| observer.observe(value, labels))).build();
    }

    /// A gauge of seconds, or other fractions, that is read when it is shown.
    pub fn observed_seconds(&self, name: &'static str, read: impl Fn() -> Option<f64> + Send + Sync + 'static) {
        let Described { unit, meaning, .. } = described(name);
        let gauge = self.0.f64_observable_gauge(name).with_unit(unit).with_description(meaning);
        gauge.with_callback(move |observer| read().into_iter().for_each(|value| observer.observe(value, &[]))).build();
    }

    /// A counter that others count, read when it is shown.
    pub fn counted_by(&self, name: &'static str, read: impl Fn(&dyn Fn(f64, &[KeyValue])) + Send + Sync + 'static) {
        let Described { unit, meaning, .. } = described(name);
        let counter = self.0.f64_observable_counter(name).with_unit(unit).with_description(meaning);
        counter.with_callback(move |observer| read(&|value, labels| observer.observe(value, labels))).build();
    }
}

fn described(name: &'static str) -> Described {
    let found = CATALOGUE.iter().find(|metric| metric.name == name).copied();
    debug_assert!(found.is_some(), "{name} is not in the catalogue");
    found.unwrap_or(Described { name, kind: catalogue::Kind::Gauge, unit: "", labels: "", meaning: "" })
}

/// A request to ClickHouse has ended, with an error of this kind or well.
pub fn db_operation(operation: &'static str, took: Duration, error: Option<&'static str>) {
    static DURATIONS: LazyLock<Histogram<f64>> =
        LazyLock::new(|| Instruments::global().seconds("db.client.operation.duration"));
    let system = KeyValue::new("db.system.name", "clickhouse");
    let operation = KeyValue::new("db.operation.name", operation);
    match error {
        None => DURATIONS.record(took.as_secs_f64(), &[system, operation]),
        Some(error) => {
            DURATIONS.record(took.as_secs_f64(), &[system, operation, KeyValue::new("error.type", error)]);
        }
    }
}

/// So many events were synced to disk together.
pub fn log_synced(events: u64, took: Duration) {
    static METERS: LazyLock<(Histogram<u64>, Histogram<f64>)> = LazyLock::new(|| {
        let instruments = Instruments::global();
        (instruments.events("tallyhouse.log.groups"), instruments.seconds("tallyhouse.log.sync.duration"))
    });
    METERS.0.record(events, &[]);
    METERS.1.record(took.as_secs_f64(), &[]);
}

/// A batch of so many events has been deduplicated.
pub fn deduplicated(events: u64, took: Duration) {
    static METERS: LazyLock<(Histogram<u64>, Histogram<f64>)> = LazyLock::new(|| {
        let instruments = Instruments::global();
        let durations = instruments.seconds("tallyhouse.ingest.deduplication.duration");
        (instruments.events("tallyhouse.ingest.batches"), durations)
    });
    METERS.0.record(events, &[]);
    METERS.1.record(took.as_secs_f64(), &[]);
}

/// An attempt to insert a segment has ended: `stored`, `failed` or `refused`.
pub fn inserted(result: &'static str) {
    static INSERTS: LazyLock<Counter<u64>> =
        LazyLock::new(|| Instruments::global().counter("tallyhouse.forwarder.inserts"));
    INSERTS.add(1, &[KeyValue::new("result", result)]);
}

/// A question was answered, from memory or not.
pub fn answered(is_cached: bool) {
    static ANSWERS: LazyLock<Counter<u64>> =
        LazyLock::new(|| Instruments::global().counter("tallyhouse.cache.answers"));
    ANSWERS.add(1, &[KeyValue::new("result", if is_cached { "hit" } else { "miss" })]);
}
