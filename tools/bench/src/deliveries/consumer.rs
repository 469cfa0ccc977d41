//! A consumer that pulls over gRPC, and acknowledges what it gets at once or after a time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::Stream as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::subscription::NAME;
use crate::service::BenchService;
use tallyhouse::transport::proto::delivery_service_client::DeliveryServiceClient;
use tallyhouse::transport::proto::{Acknowledgement, ConsumeRequest, ConsumeResponse, Delivery};

/// Deliveries that it has room for at a time.
const CREDITS: u32 = 10_000;
/// Most acknowledgements of a request.
const ACKNOWLEDGEMENTS_MAX: usize = 1_000;
/// Requests that may wait to be sent.
const REQUESTS_WAITING_MAX: usize = 64;

/// The stream of a consumer.
pub(super) struct Consumer {
    requests: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
}

impl Consumer {
    /// Connects to the subscription of the benchmark.
    pub(super) async fn connect(service: &BenchService) -> anyhow::Result<Self> {
        let (requests, waiting) = mpsc::channel(REQUESTS_WAITING_MAX);
        requests.send(ConsumeRequest { subscription: NAME.to_owned(), credits: CREDITS, ..Default::default() }).await?;
        let mut client = DeliveryServiceClient::new(service.channel().await?);
        let mut responses = client.consume(ReceiverStream::new(waiting)).await?.into_inner();
        // The first response has the epoch.
        responses.message().await?.context("the stream ended at once")?;
        Ok(Self { requests, responses })
    }

    /// Acknowledges each delivery when it has had it for `handling`, until it has acknowledged so many that `counts`.
    pub(super) async fn acknowledge(
        &mut self,
        events: usize,
        handling: Duration,
        counts: impl Fn(&Delivery) -> bool,
    ) -> anyhow::Result<()> {
        let (mut counted, mut held): (usize, VecDeque<(Instant, Vec<Delivery>)>) = (0, VecDeque::new());
        while counted < events {
            let due = held.front().map(|(due, _)| *due);
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let deliveries = held.pop_front().map(|(_, deliveries)| deliveries).unwrap_or_default();
                    counted += deliveries.iter().filter(|delivery| counts(delivery)).count();
                    self.answer(&deliveries).await?;
                }
                deliveries = self.receive() => held.push_back((Instant::now() + handling, deliveries?)),
            }
        }
        Ok(())
    }

    async fn answer(&self, deliveries: &[Delivery]) -> anyhow::Result<()> {
        let request = ConsumeRequest {
            credits: u32::try_from(deliveries.len())?,
            acknowledgements: deliveries.iter().map(acknowledgement).collect(),
            ..Default::default()
        };
        Ok(self.requests.send(request).await?)
    }

    /// Waits for a delivery, and returns it with those that are there too.
    async fn receive(&mut self) -> anyhow::Result<Vec<Delivery>> {
        let first = self.responses.message().await?.context("the stream ended early")?;
        let mut deliveries = vec![delivery(first)?];
        while deliveries.len() < ACKNOWLEDGEMENTS_MAX {
            let next = poll_fn(|context| Poll::Ready(Pin::new(&mut self.responses).poll_next(context))).await;
            let Poll::Ready(next) = next else { break };
            deliveries.push(delivery(next.context("the stream ended early")??)?);
        }
        Ok(deliveries)
    }
}

fn delivery(response: ConsumeResponse) -> anyhow::Result<Delivery> {
    ensure!(response.fenced.is_empty(), "acknowledgements came too late: {:?}", response.fenced);
    response.delivery.context("a response without a delivery")
}

fn acknowledgement(delivery: &Delivery) -> Acknowledgement {
    Acknowledgement { number: delivery.number, ..Default::default() }
}
