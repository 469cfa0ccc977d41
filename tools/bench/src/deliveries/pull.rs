//! Deliveries to a consumer that does nothing, against ingest of as many like events without a subscription.

use std::time::Instant;

use super::USERS;
use super::consumer::Consumer;
use super::subscription::Subscription;
use super::user_events::batches_of_users;
use crate::ingest::{STREAMS, Streams, per_second, stream};
use crate::report::{Report, median};
use crate::service::BenchService;
use tallyhouse::transport::proto::subscription_handler::Handler;
use tallyhouse::transport::proto::{Event, PullHandler};

/// Delivers `events` events in each of `rounds` rounds, in turns with ingest alone.
pub(super) async fn measure(
    service: &BenchService,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut pulled, mut alone, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..u64::from(rounds) {
        service.merged().await?;
        let (ingest, _) = stream(service, batches_of_users(2 * round, events), events).await?;
        service.merged().await?;
        let rate = pull(service, batches_of_users(2 * round + 1, events), events).await?;
        ratios.push(rate / ingest);
        pulled.push(rate);
        alone.push(ingest);
        service.settled().await?;
    }
    report.add("deliveries.pull_per_second", median(pulled), "events/s");
    report.add("deliveries.ingest_alone_per_second", median(alone), "events/s");
    report.add("deliveries.pull_ratio", median(ratios), "× ingest alone");
    Ok(())
}

/// Streams events and pulls them; the clock stops when all are acknowledged and nothing waits.
async fn pull(service: &BenchService, batches: Vec<Vec<Event>>, events: usize) -> anyhow::Result<f64> {
    let mut subscription = Subscription::create(service, Handler::Pull(PullHandler {}), USERS).await?;
    let mut consumer = Consumer::connect(service).await?;
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    tokio::try_join!(streams.send(), consumer.acknowledge(events, |_| true))?;
    subscription.handled(events).await?;
    let rate = per_second(events, begun);
    drop(consumer);
    subscription.delete().await?;
    Ok(rate)
}
