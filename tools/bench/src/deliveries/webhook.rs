//! Webhooks, against a client that does nothing but send requests of the same sizes to the same receiver.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::receiver::Receiver;
use super::subscription::deliver_all;
use super::user_events::batches_of_users;
use crate::ingest::per_second;
use crate::report::{Report, median};
use crate::service::BenchService;
use tallyhouse::transport::proto::WebhookHandler;
use tallyhouse::transport::proto::subscription_handler::Handler;

/// Requests under way at a time.
const CONCURRENCY: u32 = 64;
/// Seeds of events, apart from those of other measurements.
const SEED: u64 = 4_100_000;

/// Sends `events` webhooks in each of `rounds` rounds, in turns with the bare client.
pub(super) async fn measure(
    service: &BenchService,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..u64::from(rounds) {
        service.settled().await?;
        service.merged().await?;
        let rate = deliver(service, &receiver, round, events).await?;
        let body_bytes = receiver.take_body_bytes();
        anyhow::ensure!(body_bytes.len() == events, "{} of {events} webhooks came", body_bytes.len());
        service.settled().await?;
        let bare = post_bare(&receiver, body_bytes).await?;
        receiver.take_body_bytes();
        ratios.push(rate / bare);
        ours.push(rate);
        theirs.push(bare);
    }
    report.add("deliveries.webhook_per_second", median(ours), "events/s");
    report.add("deliveries.webhook_baseline_per_second", median(theirs), "requests/s");
    report.add("deliveries.webhook_ratio", median(ratios), "× a bare client");
    Ok(())
}

/// Streams events, and waits until the receiver has had them all.
async fn deliver(service: &BenchService, receiver: &Receiver, round: u64, events: usize) -> anyhow::Result<f64> {
    let handler = WebhookHandler { url: receiver.url.clone(), secrets: Vec::new() };
    let batches = batches_of_users(SEED + round, events);
    deliver_all(service, Handler::Webhook(handler), CONCURRENCY, batches, events).await
}

/// Sends bodies of these sizes.
async fn post_bare(receiver: &Receiver, body_bytes: Vec<usize>) -> anyhow::Result<f64> {
    let bodies: Arc<Vec<Bytes>> = Arc::new(body_bytes.into_iter().map(|bytes| vec![b'x'; bytes].into()).collect());
    let (client, next) = (reqwest::Client::builder().no_proxy().build()?, Arc::new(AtomicUsize::new(0)));
    let begun = Instant::now();
    let mut loops = JoinSet::new();
    for _ in 0..CONCURRENCY {
        let (client, url) = (client.clone(), receiver.url.clone());
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        loops.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = client.post(&url).header("content-type", "application/json").body(body.clone());
                request.send().await?.error_for_status()?.bytes().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = loops.join_next().await {
        done??;
    }
    Ok(per_second(bodies.len(), begun))
}
