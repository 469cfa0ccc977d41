//! Deliveries to a handler that does nothing, against ingest of as many like events without a subscription: to the trial
//! handler, which is in the service, and to a consumer that pulls over gRPC.

use std::time::{Duration, Instant};

use super::USERS;
use super::consumer::Consumer;
use super::subscription::{Subscription, deliver_all};
use super::user_events::batches_of_users;
use crate::ingest::{STREAMS, Streams, per_second, stream};
use crate::report::{Report, median};
use crate::service::BenchService;
use tallyhouse::transport::proto::subscription_handler::Handler;
use tallyhouse::transport::proto::{Event, PullHandler, TrialHandler};

/// Delivers `events` events to each in each of `rounds` rounds, in turns with ingest alone.
pub(super) async fn measure(
    service: &BenchService,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut alone, mut tried, mut pulled) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trial_ratios, mut pull_ratios) = (Vec::new(), Vec::new());
    for seed in (0..u64::from(rounds)).map(|round| 3 * round) {
        service.merged().await?;
        let (ingest, _) = stream(service, batches_of_users(seed, events), events).await?;
        service.merged().await?;
        let batches = batches_of_users(seed + 1, events);
        let trial = deliver_all(service, Handler::Trial(TrialHandler {}), USERS, batches, events).await?;
        service.merged().await?;
        let pull = pull(service, batches_of_users(seed + 2, events), events).await?;
        trial_ratios.push(trial / ingest);
        pull_ratios.push(pull / ingest);
        alone.push(ingest);
        tried.push(trial);
        pulled.push(pull);
        service.settled().await?;
    }
    report.add("deliveries.ingest_alone_per_second", median(alone), "events/s");
    report.add("deliveries.trial_per_second", median(tried), "events/s");
    report.add("deliveries.trial_ratio", median(trial_ratios), "× ingest alone");
    report.add("deliveries.pull_per_second", median(pulled), "events/s");
    report.add("deliveries.pull_ratio", median(pull_ratios), "× ingest alone");
    Ok(())
}

/// Streams events and pulls them; the clock stops when all are acknowledged and nothing waits.
async fn pull(service: &BenchService, batches: Vec<Vec<Event>>, events: usize) -> anyhow::Result<f64> {
    let mut subscription = Subscription::create(service, Handler::Pull(PullHandler {}), USERS).await?;
    let mut consumer = Consumer::connect(service).await?;
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    tokio::try_join!(streams.send(), consumer.acknowledge(events, Duration::ZERO, |_| true))?;
    subscription.handled(events).await?;
    let rate = per_second(events, begun);
    drop(consumer);
    subscription.delete().await?;
    Ok(rate)
}
