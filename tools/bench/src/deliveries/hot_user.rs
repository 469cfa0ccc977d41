//! What a user with half of all events costs the others: the time until the events of the others are delivered, with and
//! without those of the hot user between them. Measured with a consumer that takes a time for each event, as handlers do, and
//! with one that takes none.

use std::time::{Duration, Instant};

use super::USERS;
use super::consumer::Consumer;
use super::subscription::Subscription;
use super::user_events::{HOT_USER, of_users, with_hot_user};
use crate::events::in_batches;
use crate::ingest::{BATCH, Streams};
use crate::report::{Report, median};
use crate::service::BenchService;
use tallyhouse::transport::proto::subscription_handler::Handler;
use tallyhouse::transport::proto::{Delivery, Event, PullHandler};

/// How long the consumer takes for an event, and how many users' events it takes at a time.
const HANDLING: Duration = Duration::from_millis(5);
const CONCURRENCY: u32 = 64;
/// Everything comes in order of `seq`: no event of the hot user is early.
const STREAMS: usize = 1;
/// Seeds of events, apart from those of other measurements.
const SEED: u64 = 4_000_000;

/// Delivers `others` events of all but one user in each of `rounds` rounds, alone and with as many of the hot user.
pub(super) async fn measure(
    service: &BenchService,
    rounds: u32,
    others: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let busy = Handling { pause: HANDLING, concurrency: CONCURRENCY };
    let (alone, beside, slowdown) = measure_with(service, rounds, others, busy, SEED).await?;
    report.add("deliveries.others_alone_seconds", alone, "s");
    report.add("deliveries.others_beside_hot_user_seconds", beside, "s");
    report.add("deliveries.hot_user_slowdown", slowdown, "× alone");
    let idle = Handling { pause: Duration::ZERO, concurrency: USERS };
    let (.., slowdown) = measure_with(service, rounds, others, idle, 2 * SEED).await?;
    report.add("deliveries.hot_user_slowdown_of_no_effect", slowdown, "× alone");
    Ok(())
}

/// How the consumer handles events.
#[derive(Clone, Copy)]
struct Handling {
    pause: Duration,
    concurrency: u32,
}

/// The seconds of the others without the hot user and beside it, and the ratio of both: medians.
async fn measure_with(
    service: &BenchService,
    rounds: u32,
    others: usize,
    handling: Handling,
    seed: u64,
) -> anyhow::Result<(f64, f64, f64)> {
    let (mut alone, mut beside, mut slowdowns) = (Vec::new(), Vec::new(), Vec::new());
    for round in (0..u64::from(rounds)).map(|round| seed + 3 * round) {
        let events = in_batches(of_users(round, USERS - 1, others), BATCH / 2);
        let without = until_others_are_delivered(service, events, others, handling).await?;
        let events = in_batches(with_hot_user(round + 1, of_users(round + 2, USERS - 1, others)), BATCH);
        let with = until_others_are_delivered(service, events, others, handling).await?;
        slowdowns.push(with.as_secs_f64() / without.as_secs_f64());
        alone.push(without.as_secs_f64());
        beside.push(with.as_secs_f64());
    }
    Ok((median(alone), median(beside), median(slowdowns)))
}

/// The time from the first event that is sent to the last acknowledgement of an event of the others.
async fn until_others_are_delivered(
    service: &BenchService,
    batches: Vec<Vec<Event>>,
    others: usize,
    Handling { pause, concurrency }: Handling,
) -> anyhow::Result<Duration> {
    service.settled().await?;
    service.merged().await?;
    let subscription = Subscription::create(service, Handler::Pull(PullHandler {}), concurrency).await?;
    let mut consumer = Consumer::connect(service).await?;
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    let acknowledge = async {
        consumer.acknowledge(others, pause, is_of_others).await?;
        anyhow::Ok(begun.elapsed())
    };
    let (_, taken) = tokio::try_join!(streams.send(), acknowledge)?;
    drop(consumer);
    // What the hot user has left goes with it.
    subscription.delete().await?;
    Ok(taken)
}

fn is_of_others(delivery: &Delivery) -> bool {
    delivery.event.as_ref().is_some_and(|event| event.user_id != HOT_USER)
}
