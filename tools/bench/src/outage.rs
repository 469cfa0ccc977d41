//! What happens while ClickHouse is away: every event is acknowledged, memory
//! stays as it is, and afterwards the backlog goes while ingest goes on.

use std::time::{Duration, Instant};

use crate::load::{Load, RATE};
use crate::report::Report;
use crate::service::BenchService;

/// How long the load runs before ClickHouse goes.
const BEFORE: Duration = Duration::from_secs(5);
/// Pause between two looks at memory and backlog.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Longest that the backlog may take to go, against the time it took to grow.
const DRAIN_FACTOR_MAX: u32 = 2;

/// Stops ClickHouse for so long under a steady load.
pub(crate) async fn measure(service: &BenchService, away: Duration, report: &mut Report) -> anyhow::Result<()> {
    let stored_before = service.count_events().await?;
    let load = Load::begin(service, 8_000_000).await?;
    tokio::time::sleep(BEFORE).await;
    let rss_before = service.memory_mb().0;
    let stopped = service.stop_engine()?;
    let mut rss_max: f64 = 0.0;
    let begun = Instant::now();
    while begun.elapsed() < away {
        tokio::time::sleep(LOOK_PAUSE).await;
        rss_max = rss_max.max(service.memory_mb().0);
    }
    let rss_after = service.memory_mb().0;
    let backlog = service.unstored_events().await?;
    drop(stopped); // It goes on.
    let returned = Instant::now();
    // What arrives meanwhile is in a segment or two.
    while service.unstored_events().await? > 2 * RATE {
        anyhow::ensure!(returned.elapsed() < away * DRAIN_FACTOR_MAX + BEFORE, "the backlog does not go");
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let drained = returned.elapsed().as_secs_f64();
    rss_max = rss_max.max(service.memory_mb().0);
    let acknowledged = load.acknowledged();
    let times = load.end().await?;
    service.settled().await?;
    let stored = service.count_events().await? - stored_before;
    anyhow::ensure!(stored >= acknowledged, "{acknowledged} events were acknowledged, {stored} are stored");

    #[allow(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
    let as_f64 = |count: u64| count as f64;
    report.add("outage.seconds", away.as_secs_f64(), "s");
    report.add("outage.acknowledged_events", as_f64(acknowledged), "events, none refused, all stored once");
    report.add("outage.backlog_events", as_f64(backlog), "events");
    report.add("outage.drain_seconds", drained, "s, with ingest going on");
    report.add("outage.drain_events_per_second", as_f64(backlog) / drained + as_f64(RATE), "events/s");
    report.add("outage.rss_before_mb", rss_before, "MB");
    report.add("outage.rss_at_end_mb", rss_after, "MB");
    report.add("outage.rss_max_mb", rss_max, "MB");
    report.add_times("outage.ack", &times);
    Ok(())
}
