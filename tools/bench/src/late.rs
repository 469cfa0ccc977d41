//! How fast events stream in that occurred long ago, and whose ids are in the
//! id ledger, if they are known.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::events::{Generator, in_batches};
use crate::ingest::{BATCH, stream};
use crate::report::Report;
use crate::scattered;
use crate::service::BenchService;

/// Ids that may be in memory in this measurement. More are stored.
const INDEX_IDS_MAX: u64 = 4_000_000;
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Days ago: where nothing is stored, and where there is.
const EMPTY_DAYS_AGO: u32 = 20;
const STORED_DAYS_AGO: u32 = 10;
/// Rows stored of the old day, for each hundred events sent into it.
const STORED_PERCENT: u64 = 200;
/// Of a hundred events sent into the old day, so many are stored already.
const REPEATED_PERCENT: usize = 20;

/// Sends `events` events into an old day of which nothing is stored, and then
/// into one of which there is.
pub(crate) async fn measure(program: &Path, dir: &Path, events: usize, report: &mut Report) -> anyhow::Result<()> {
    let ids_max = INDEX_IDS_MAX.to_string();
    let mut service = BenchService::start(program, dir.join("late"), &[("TALLYHOUSE_INDEX_IDS_MAX", &ids_max)]).await?;
    service.preload(INDEX_IDS_MAX, Duration::ZERO, DAY).await?;
    service.preload(events as u64 * STORED_PERCENT / 100, DAY * STORED_DAYS_AGO, DAY).await?;
    let stored = service.stored_events(events * REPEATED_PERCENT / 100, DAY * STORED_DAYS_AGO).await?;
    service.relearn_ids().await?;

    let ends = |days_ago: u32| SystemTime::now() - DAY * days_ago;
    let mut generator = Generator::new(7_000_000);
    let history: Vec<_> = (0..events).map(|_| generator.event(ends(EMPTY_DAYS_AGO), DAY)).collect();
    let (rate, acks) = stream(&service, in_batches(history, BATCH), events).await?;
    report.add("late.history_events_per_second", rate, "events/s");
    report.add_times("late.history_ack", &acks);

    let mut into_stored: Vec<_> = (stored.len()..events).map(|_| generator.event(ends(STORED_DAYS_AGO), DAY)).collect();
    let repeated = stored.len();
    into_stored.extend(stored);
    generator.shuffle(&mut into_stored);
    let before = service.count_events().await?;
    let (rate, acks) = stream(&service, in_batches(into_stored, BATCH), events).await?;
    let added = service.count_events().await? - before;
    anyhow::ensure!(
        added == (events - repeated) as u64,
        "{added} events were added; {repeated} of {events} were stored before"
    );
    report.add("late.stored_day_events_per_second", rate, "events/s");
    report.add_times("late.stored_day_ack", &acks);
    scattered::measure(&service, report).await
}
