//! What events cost: processor time, bytes and memory of the service and of ClickHouse, and what that comes to at a steady rate.
//!
//! The service is started for this measurement alone, so that its peak of memory is that of these events.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use tallyhouse::transport::proto::IngestBatchRequest;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;

use crate::events::Generator;
use crate::ingest::stream;
use crate::report::Report;
use crate::service::BenchService;

/// Events a second of the slow load: so few that each insert has few rows, and what is spent is spent whatever the rate.
const SLOW_RATE: u32 = 100;
/// Calls a second of the slow load.
const SLOW_CALLS: u32 = 10;
/// Events that are logged while ClickHouse is stopped, to see what they take in the log.
const LOGGED_EVENTS: usize = 50_000;
/// Of a hundred events, so many repeat another one.
const DUPLICATES: u32 = 5;
/// The rates for which a row is printed, in events a second.
const RATES: [u32; 4] = [100, 1_000, 10_000, 50_000];
const SECONDS_PER_HOUR: f64 = 3_600.0;
const SECONDS_PER_YEAR: f64 = 365.25 * 24.0 * SECONDS_PER_HOUR;
const MB: f64 = 1_000_000.0;

/// What was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost {
    /// Cores that the service and ClickHouse take under the slow load.
    base_cores: (f64, f64),
    /// Processor time of both for an event that is streamed, in microseconds, merges included.
    cpu_us: (f64, f64),
    /// Bytes that both write to the disk for such an event, merges included.
    written_bytes: (f64, f64),
    /// Bytes of an event in the tables, once they are merged.
    stored_bytes: f64,
    /// Bytes of an event in the log.
    log_bytes: f64,
    /// Bytes of an id in the id ledger.
    ledger_bytes: f64,
    /// The largest resident memory of both, in megabytes.
    memory_mb: (f64, f64),
}

/// Measures a slow load for `slow`, and then `events` events in batches of `batch`, as fast as they are taken.
pub(crate) async fn measure(
    program: &Path,
    dir: &Path,
    (events, batch): (usize, usize),
    slow: Duration,
    report: &mut Report,
) -> anyhow::Result<Cost> {
    let largest = batch.max(10_000).to_string();
    let service = BenchService::start(program, dir.join("cost"), &[("TALLYHOUSE_BATCH_EVENTS_MAX", &largest)]).await?;
    let base_cores = slow_load(&service, slow).await?;

    let batches = Generator::new(9_000_000).batches(events, batch, DUPLICATES, SystemTime::now());
    let (begun, stored_before) = (service.usage()?, service.stored_bytes().await?);
    let known_before = service.count_events().await?;
    let (rate, _) = stream(&service, batches, events).await?;
    service.merged().await?;
    let (ended, stored_after) = (service.usage()?, service.stored_bytes().await?);
    let known = service.count_events().await? - known_before;

    let per_event = |from: f64, to: f64| (to - from) / count(events);
    let cost = Cost {
        base_cores,
        cpu_us: (
            per_event(begun.service.cpu_seconds, ended.service.cpu_seconds) * MB,
            per_event(begun.engine.cpu_seconds, ended.engine.cpu_seconds) * MB,
        ),
        written_bytes: (
            per_event(begun.service.written_bytes, ended.service.written_bytes),
            per_event(begun.engine.written_bytes, ended.engine.written_bytes),
        ),
        stored_bytes: (stored_after - stored_before) / count(usize::try_from(known)?),
        log_bytes: log_bytes(&service, batch).await?,
        ledger_bytes: service.ledger_bytes_per_id(count(usize::try_from(known)?)).await?,
        memory_mb: (ended.service.memory_peak_mb, ended.engine.memory_peak_mb),
    };
    report.add("cost.events", count(events), "events");
    report.add("cost.batch", count(batch), "events");
    report.add("cost.events_per_second", rate, "events/s");
    cost.add_to(report);
    Ok(cost)
}

/// Sends events at the slow rate, and returns the cores that the service and ClickHouse took.
async fn slow_load(service: &BenchService, slow: Duration) -> anyhow::Result<(f64, f64)> {
    let (mut client, mut generator) = (IngestServiceClient::new(service.channel().await?), Generator::new(9_500_000));
    let (begun, before) = (Instant::now(), service.usage()?);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / SLOW_CALLS);
    while begun.elapsed() < slow {
        ticks.tick().await;
        let now = SystemTime::now();
        let events = (0..SLOW_RATE / SLOW_CALLS).map(|_| generator.event(now, Duration::from_secs(1))).collect();
        client.ingest_batch(IngestBatchRequest { events, ..Default::default() }).await?;
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), service.usage()?);
    let cores = |from: f64, to: f64| (to - from) / seconds;
    service.settled().await?;
    Ok((
        cores(before.service.cpu_seconds, after.service.cpu_seconds),
        cores(before.engine.cpu_seconds, after.engine.cpu_seconds),
    ))
}

/// Bytes of an event in the log: of events that wait for ClickHouse.
async fn log_bytes(service: &BenchService, batch: usize) -> anyhow::Result<f64> {
    let stopped = service.stop_engine()?;
    let batches = Generator::new(9_900_000).batches(LOGGED_EVENTS, batch, 0, SystemTime::now());
    let mut client = IngestServiceClient::new(service.channel().await?);
    for events in batches {
        client.ingest_batch(IngestBatchRequest { events, ..Default::default() }).await?;
    }
    let (events, bytes) = service.logged().await?;
    drop(stopped); // It goes on.
    service.settled().await?;
    Ok(bytes / events)
}

impl Cost {
    fn add_to(&self, report: &mut Report) {
        for (name, (service, engine), unit) in [
            ("base_cores", self.base_cores, "cores, at 100 events/s"),
            ("cpu_seconds_per_million", self.cpu_us, "s"),
            ("written_mb_per_million", self.written_bytes, "MB"),
            ("memory_peak_mb", self.memory_mb, "MB"),
        ] {
            report.add(&format!("cost.service_{name}"), service, unit);
            report.add(&format!("cost.engine_{name}"), engine, unit);
        }
        report.add("cost.stored_mb_per_million", self.stored_bytes, "MB, merged");
        report.add("cost.log_mb_per_million", self.log_bytes, "MB");
        report.add("cost.ledger_mb_per_million", self.ledger_bytes, "MB");
    }

    /// The rows of the table of sizes: see `docs/benchmark-method.md` for the formula.
    pub(crate) fn rows(&self) -> String {
        let mut rows = String::from(
            "| events/s, sustained | service | ClickHouse | written to disk | log, for an outage of an hour | \
             ids, for a day | ClickHouse's disk for a year |\n|---|---|---|---|---|---|---|\n",
        );
        for rate in RATES {
            rows.push_str(&self.row(rate));
        }
        rows
    }

    fn row(&self, rate: u32) -> String {
        let events = f64::from(rate);
        // The slow load's own events are part of its cores.
        let more = events - f64::from(SLOW_RATE);
        let cores = |base: f64, us: f64| base + more * us / MB;
        let gb = |bytes: f64| bytes / 1_000.0 / MB;
        format!(
            "| {} | {:.2} cores, {:.0} MB | {:.2} cores, {:.0} MB | {:.2} MB/s | {:.2} GB | {:.2} GB | {:.3} TB |\n",
            thousands(rate),
            cores(self.base_cores.0, self.cpu_us.0),
            self.memory_mb.0,
            cores(self.base_cores.1, self.cpu_us.1),
            self.memory_mb.1,
            events * (self.written_bytes.0 + self.written_bytes.1) / MB,
            gb(events * SECONDS_PER_HOUR * self.log_bytes),
            gb(events * 24.0 * SECONDS_PER_HOUR * self.ledger_bytes),
            gb(events * SECONDS_PER_YEAR * self.stored_bytes) / 1_000.0,
        )
    }
}

fn thousands(rate: u32) -> String {
    if rate < 1_000 { rate.to_string() } else { format!("{},{:03}", rate / 1_000, rate % 1_000) }
}

#[allow(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
const fn count(events: usize) -> f64 {
    events as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_the_base_and_what_each_event_adds() {
        let cost = Cost {
            base_cores: (0.01, 0.1),
            cpu_us: (2.0, 5.0),
            written_bytes: (200.0, 300.0),
            stored_bytes: 20.0,
            log_bytes: 150.0,
            ledger_bytes: 17.0,
            memory_mb: (210.4, 1_200.0),
        };
        let rows: Vec<String> = cost.rows().lines().skip(2).map(str::to_owned).collect();
        let expected = [
            "| 100 | 0.01 cores, 210 MB | 0.10 cores, 1200 MB | 0.05 MB/s | 0.05 GB | 0.15 GB | 0.063 TB |",
            "| 1,000 | 0.01 cores, 210 MB | 0.10 cores, 1200 MB | 0.50 MB/s | 0.54 GB | 1.47 GB | 0.631 TB |",
            "| 10,000 | 0.03 cores, 210 MB | 0.15 cores, 1200 MB | 5.00 MB/s | 5.40 GB | 14.69 GB | 6.312 TB |",
            "| 50,000 | 0.11 cores, 210 MB | 0.35 cores, 1200 MB | 25.00 MB/s | 27.00 GB | 73.44 GB | 31.558 TB |",
        ];
        assert_eq!(rows, expected);
    }
}
