//! How soon a service is ready after its process was started, with all that it had before.

use std::time::{Duration, SystemTime};

use crate::events::Generator;
use crate::ingest::{BATCH, STREAMS, Streams};
use crate::report::{Report, median};
use crate::service::{BenchService, Ending};

/// Events that are acknowledged right before each ending, so that there is something to recover.
const EVENTS_BEFORE: usize = 10_000;

/// Figures with nothing stored, and how the service was ended before.
const FIGURES: [(&str, Ending); 2] = [("start.ready_ms", Ending::Stop), ("start.ready_after_kill_ms", Ending::Kill)];
/// What the names of the same figures have at their ends when much is stored.
const PRELOADED: &str = "_preloaded";

/// Ends and starts the service in each of `rounds` rounds, by SIGTERM and by SIGKILL, with nothing stored.
pub(crate) async fn measure(service: &mut BenchService, rounds: u32, report: &mut Report) -> anyhow::Result<()> {
    measure_as(service, rounds, "", report).await
}

/// The same with what is stored by now, and against what was measured with nothing.
pub(crate) async fn measure_preloaded(
    service: &mut BenchService,
    rounds: u32,
    report: &mut Report,
) -> anyhow::Result<()> {
    measure_as(service, rounds, PRELOADED, report).await?;
    for ((name, _), growth) in FIGURES.into_iter().zip(["start.growth", "start.growth_after_kill"]) {
        if let (Some(before), Some(now)) = (report.value(name), report.value(&format!("{name}{PRELOADED}"))) {
            report.add(growth, now / before, "× with nothing stored");
        }
    }
    Ok(())
}

async fn measure_as(service: &mut BenchService, rounds: u32, suffix: &str, report: &mut Report) -> anyhow::Result<()> {
    for (name, ending) in FIGURES {
        let mut times = Vec::new();
        for round in 0..rounds {
            let mut generator = Generator::new(6_000_000 + u64::from(round));
            let batches = generator.batches(EVENTS_BEFORE, BATCH, 0, SystemTime::now());
            Streams::connect(service, batches, STREAMS).await?.send().await?;
            times.push(millis(service.restart(ending).await?));
        }
        report.add(&format!("{name}{suffix}"), median(times), "ms");
    }
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
