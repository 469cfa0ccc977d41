//! A subscription of the benchmark.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tonic::transport::Channel;

use crate::ingest::{STREAMS, Streams, per_second};
use crate::service::BenchService;
use tallyhouse::transport::proto::delivery_service_client::DeliveryServiceClient;
use tallyhouse::transport::proto::subscription_handler::Handler;
use tallyhouse::transport::proto::{
    CreateSubscriptionRequest, DeleteSubscriptionRequest, Event, GetSubscriptionStatusRequest,
    GetSubscriptionStatusResponse, SubscriptionHandler, SubscriptionSettings,
};

/// Its name. There is one at a time.
pub(super) const NAME: &str = "benchmark";
/// Pause between two looks at its state.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// Longest that nothing may be delivered.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// A subscription to all events that are accepted from now on.
pub(super) struct Subscription {
    client: DeliveryServiceClient<Channel>,
}

impl Subscription {
    /// Creates it, for so many users at a time.
    pub(super) async fn create(service: &BenchService, handler: Handler, concurrency: u32) -> anyhow::Result<Self> {
        let mut client = DeliveryServiceClient::new(service.channel().await?);
        let request = CreateSubscriptionRequest {
            name: NAME.to_owned(),
            handler: Some(SubscriptionHandler { handler: Some(handler) }),
            settings: Some(SubscriptionSettings { concurrency: Some(concurrency), ..Default::default() }),
            ..Default::default()
        };
        client.create_subscription(request).await?;
        Ok(Self { client })
    }

    /// Returns when so many events were handled and none waits.
    ///
    /// # Errors
    /// When an event failed, was skipped or was missed, and when nothing happens for long.
    pub(super) async fn handled(&mut self, events: usize) -> anyhow::Result<()> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let status = self.status().await?;
            ensure!(
                (status.failed, status.skipped, status.missed_segments, status.retries) == (0, 0, 0, 0),
                "not everything was delivered at once and in order: {status:?}"
            );
            if status.waiting == 0 && status.processed >= events as u64 {
                ensure!(status.processed == events as u64, "{} of {events} events were handled", status.processed);
                return Ok(());
            }
            if status.processed > last {
                (last, since) = (status.processed, Instant::now());
            }
            ensure!(since.elapsed() < STANDSTILL_MAX, "nothing is delivered: {status:?}");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn status(&mut self) -> anyhow::Result<GetSubscriptionStatusResponse> {
        let request = GetSubscriptionStatusRequest { name: NAME.to_owned() };
        Ok(self.client.get_subscription_status(request).await?.into_inner())
    }

    /// Deletes it, with what it has not delivered.
    pub(super) async fn delete(mut self) -> anyhow::Result<()> {
        self.client.delete_subscription(DeleteSubscriptionRequest { name: NAME.to_owned() }).await?;
        Ok(())
    }
}

/// Streams events to a new subscription, and returns how many a second were handled: the clock stops when all are, and none
/// waits.
pub(super) async fn deliver_all(
    service: &BenchService,
    handler: Handler,
    concurrency: u32,
    batches: Vec<Vec<Event>>,
    events: usize,
) -> anyhow::Result<f64> {
    let mut subscription = Subscription::create(service, handler, concurrency).await?;
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    streams.send().await?;
    subscription.handled(events).await?;
    let rate = per_second(events, begun);
    subscription.delete().await?;
    Ok(rate)
}
