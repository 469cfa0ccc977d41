//! How soon fresh events count while others stream in that occurred on any day of two years: ClickHouse writes a part for
//! each of these days.

use std::time::{Duration, Instant, SystemTime};

use crate::events::Generator;
use crate::freshness::FreshnessProbe;
use crate::report::{Report, Times};
use crate::service::BenchService;
use tallyhouse::transport::proto::IngestBatchRequest;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;

/// Events of the backfill, and of one of its batches.
const EVENTS: usize = 10_000;
const BATCH: usize = 50;
/// Over how long a time they are scattered.
const SPAN: Duration = Duration::from_secs(725 * 24 * 3_600);

/// Sends the backfill, and probes freshness until all of it is stored.
pub(crate) async fn measure(service: &BenchService, report: &mut Report) -> anyhow::Result<()> {
    service.settled().await?;
    service.merged().await?;
    let before = service.count_events().await?;
    let mut client = IngestServiceClient::new(service.channel().await?);
    let begun = Instant::now();
    let backfill = tokio::spawn(async move {
        let mut generator = Generator::new(7_500_000);
        for _ in 0..EVENTS / BATCH {
            let events = (0..BATCH).map(|_| generator.event(SystemTime::now(), SPAN)).collect();
            client.ingest_batch(IngestBatchRequest { events, durability: 0, ..Default::default() }).await?;
        }
        anyhow::Ok(())
    });
    let mut probe = FreshnessProbe::new(service, "beside").await?;
    let mut times = Times::new();
    while !backfill.is_finished() || service.unstored_events().await? > 0 {
        times.add(probe.time().await?);
    }
    backfill.await??;
    let seconds = begun.elapsed().as_secs_f64();
    let stored = service.count_events().await? - before;
    anyhow::ensure!(stored == EVENTS as u64 + times.len(), "{stored} events were stored");
    report.add("late.scattered_seconds", seconds, "s for 10,000 events of 725 days");
    report.add_times("late.scattered_freshness", &times);
    Ok(())
}
