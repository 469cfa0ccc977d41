//! How fast events stream in whose times are close together: more of one minute, or of one date, than the index of ids has
//! room for. Against events of any time of a day.

use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::events::{Generator, in_batches};
use crate::ingest::{BATCH, stream};
use crate::report::{Report, median};
use crate::service::BenchService;
use tallyhouse::transport::proto::Event;

/// Ids that may be in memory in this measurement.
const INDEX_IDS_MAX: usize = 100_000;
/// Least events of a round, so that one minute of them does not fit into the index.
const EVENTS_MIN: usize = 2 * INDEX_IDS_MAX;
const MILLISECOND: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// When the events of a stream occurred.
#[derive(Clone, Copy)]
enum Times {
    /// At any time of the last 24 hours.
    Day,
    /// Within one minute, an hour ago.
    Minute,
    /// Today, by the date alone: at midnight (UTC).
    Date,
}

/// Streams `events` events, or more if that is too few to fill the index, of each kind in each of `rounds` rounds.
pub(crate) async fn measure(
    program: &Path,
    dir: &Path,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ids_max = INDEX_IDS_MAX.to_string();
    let service = BenchService::start(program, dir.join("cliff"), &[("TALLYHOUSE_INDEX_IDS_MAX", &ids_max)]).await?;
    let (events, now) = (events.max(EVENTS_MIN), SystemTime::now());
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..rounds {
        let mut generator = Generator::new(5_000_000 + u64::from(round));
        for (rates, times) in rates.iter_mut().zip([Times::Day, Times::Minute, Times::Date]) {
            let batches = in_batches((0..events).map(|_| times.event(&mut generator, now)).collect(), BATCH);
            service.merged().await?;
            rates.push(stream(&service, batches, events).await?.0);
        }
    }
    ensure_stored(&service, u64::from(rounds) * 3 * events as u64).await?;
    let ratios = |ours: &[f64]| median(ours.iter().zip(&rates[0]).map(|(ours, theirs)| ours / theirs).collect());
    report.add("cliff.ratio", ratios(&rates[1]), "× events of a day");
    report.add("cliff.dates_ratio", ratios(&rates[2]), "× events of a day");
    let [day, minute, dates] = rates.map(median);
    report.add("cliff.events_per_second", minute, "events/s of one minute");
    report.add("cliff.dates_events_per_second", dates, "events/s of one date");
    report.add("cliff.baseline_events_per_second", day, "events/s of a day");
    Ok(())
}

/// A stream that is refused is fast, too.
async fn ensure_stored(service: &BenchService, expected: u64) -> anyhow::Result<()> {
    let stored = service.count_events().await?;
    anyhow::ensure!(stored == expected, "{stored} of {expected} events were stored");
    Ok(())
}

impl Times {
    fn event(self, generator: &mut Generator, now: SystemTime) -> Event {
        match self {
            Self::Day => generator.event(now, DAY),
            Self::Minute => generator.event(minute_end(now - 60 * MINUTE), MINUTE - MILLISECOND),
            Self::Date => {
                let mut event = generator.event(now, Duration::ZERO);
                event.occurred_at = event.occurred_at.map(midnight);
                event
            }
        }
    }
}

/// The last millisecond of the minute before.
fn minute_end(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let into_minute =
        Duration::from_secs(since.as_secs() % MINUTE.as_secs()) + Duration::from_nanos(since.subsec_nanos().into());
    time - into_minute - MILLISECOND
}

/// The midnight before.
fn midnight(at: prost_types::Timestamp) -> prost_types::Timestamp {
    let day = i64::try_from(DAY.as_secs()).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds: at.seconds - at.seconds.rem_euclid(day), nanos: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn periods(times: Times, seconds: i64) -> HashSet<i64> {
        let mut generator = Generator::new(1);
        let now = SystemTime::now();
        let second = |event: Event| event.occurred_at.unwrap().seconds.div_euclid(seconds);
        (0..10_000).map(|_| second(times.event(&mut generator, now))).collect()
    }

    #[test]
    fn times_are_as_close_as_they_say() {
        assert_eq!(periods(Times::Minute, 60).len(), 1);
        assert_eq!(periods(Times::Date, 24 * 3_600).len(), 1);
        assert!(periods(Times::Day, 3_600).len() >= 24);
    }
}
