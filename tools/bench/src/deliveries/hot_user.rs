//! What a user with half of all events costs the others: the time until the events of the others are delivered, with and
//! without those of the hot user between them.

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
    let (mut alone, mut beside, mut slowdowns) = (Vec::new(), Vec::new(), Vec::new());
    for round in (0..u64::from(rounds)).map(|round| SEED + 3 * round) {
        let events = of_users(round, USERS - 1, others);
        let without = until_others_are_delivered(service, in_batches(events, BATCH / 2), others).await?;
        let events = with_hot_user(round + 1, of_users(round + 2, USERS - 1, others));
        let with = until_others_are_delivered(service, in_batches(events, BATCH), others).await?;
        slowdowns.push(with.as_secs_f64() / without.as_secs_f64());
        alone.push(without.as_secs_f64());
        beside.push(with.as_secs_f64());
    }
    report.add("deliveries.others_alone_seconds", median(alone), "s");
    report.add("deliveries.others_beside_hot_user_seconds", median(beside), "s");
    report.add("deliveries.hot_user_slowdown", median(slowdowns), "× alone");
    Ok(())
}

/// The time from the first event that is sent to the last acknowledgement of an event of the others.
async fn until_others_are_delivered(
    service: &BenchService,
    batches: Vec<Vec<Event>>,
    others: usize,
) -> anyhow::Result<Duration> {
    service.settled().await?;
    service.merged().await?;
    let subscription = Subscription::create(service, Handler::Pull(PullHandler {}), USERS).await?;
    let mut consumer = Consumer::connect(service).await?;
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    let acknowledge = async {
        consumer.acknowledge(others, is_of_others).await?;
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
