//! The stream by which consumers pull: credits and acknowledgements come in, deliveries go out.
//!
//! The end of the stream ends the consumer's leases. Where the service ends it, because it stops or the token expires, that
//! is no attempt; where the consumer does, it is a failed one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use tallyhouse_delivery::handler::{Acknowledgement, Consumer, Lease, PulledDelivery};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Request, Status, Streaming};

use super::convert;
use crate::domain::Error;
use crate::transport::context::{StreamPermit, TransportContext};
use crate::transport::error::status;
use crate::transport::proto::{self, ConsumeRequest, ConsumeResponse};

/// Longest wait for the first request.
const FIRST_REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most acknowledgements of a request.
const ACKNOWLEDGEMENTS_MAX: usize = 10_000;
/// Deliveries that are answered with before acknowledgements are looked for again.
const DELIVERIES_AT_A_TIME: usize = 256;
/// How long acknowledgements are taken after the service has begun to end a stream.
const LAST_ACKNOWLEDGEMENTS_WAIT: Duration = Duration::from_secs(5);
/// The `retry_after` when a subscription has got another handler.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Begins a stream.
pub(super) async fn begin(
    context: &Arc<TransportContext>,
    request: Request<Streaming<ConsumeRequest>>,
) -> Result<BoxStream<'static, Result<ConsumeResponse, Status>>, Status> {
    let caller = super::super::caller(&request)?;
    let permit = context.begin_stream(&request, &caller).map_err(status::of)?;
    let mut requests = request.into_inner();
    let first = timeout(FIRST_REQUEST_WAIT_MAX, requests.message()).await;
    let late = || Error::invalid_field("subscription", "must be sent in the first request within 10 seconds");
    let first = first.map_err(|_| status::of(late()))??.unwrap_or_default();
    let handler = context.app.subscriptions.consumers(&caller.org_id, &first.subscription).map_err(status::of)?;
    let (consumer, deliveries) = handler.connect();
    let epoch = ConsumeResponse { epoch: consumer.epoch(), ..ConsumeResponse::default() };
    let mut stream = ConsumerStream {
        consumer,
        deliveries,
        pulled: Vec::new(),
        requests,
        responses: VecDeque::from([epoch]),
        end: Box::pin(context.drain.end_of_stream()),
        ends_at: None,
        expired: Box::pin(caller.expired()),
        _permit: permit,
    };
    stream.take_in(first)?;
    let responses = unfold(Some(stream), |stream| async move {
        let mut stream = stream?;
        match stream.next().await? {
            Ok(response) => Some((Ok(response), Some(stream))),
            Err(status) => Some((Err(status), None)),
        }
    });
    Ok(responses.boxed())
}

/// A consumer's stream.
struct ConsumerStream {
    consumer: Consumer,
    deliveries: mpsc::UnboundedReceiver<PulledDelivery>,
    /// Deliveries that were received and are about to be responses; empty between.
    pulled: Vec<PulledDelivery>,
    requests: Streaming<ConsumeRequest>,
    /// Responses that come before the next delivery.
    responses: VecDeque<ConsumeResponse>,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Until when acknowledgements are taken, once the service ends the stream.
    ends_at: Option<Instant>,
    expired: Pin<Box<dyn Future<Output = Error> + Send>>,
    _permit: StreamPermit,
}

impl ConsumerStream {
    /// The next response, or why there are no more; none at the end.
    async fn next(&mut self) -> Option<Result<ConsumeResponse, Status>> {
        loop {
            if let Some(response) = self.responses.pop_front() {
                return Some(Ok(response));
            }
            if self.ends_at.is_some() && self.consumer.leases() == 0 {
                return None;
            }
            let until = self.ends_at.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                () = sleep_until(until), if self.ends_at.is_some() => {
                    self.consumer.release();
                    return None;
                }
                () = &mut self.end, if self.ends_at.is_none() => {
                    self.consumer.stop();
                    self.ends_at = Some(Instant::now() + LAST_ACKNOWLEDGEMENTS_WAIT);
                }
                error = &mut self.expired => {
                    self.consumer.release();
                    return Some(Err(status::of(error)));
                }
                request = self.requests.message() => match request {
                    Ok(Some(request)) => if let Err(refused) = self.take_in(request) { return Some(Err(refused)) },
                    Ok(None) => return None,
                    Err(status) => return Some(Err(status)),
                },
                received = self.deliveries.recv_many(&mut self.pulled, DELIVERIES_AT_A_TIME) => {
                    if received == 0 {
                        let message = "the subscription was deleted or has another handler now";
                        return Some(Err(status::of(Error::unavailable(message, RETRY_AFTER))));
                    }
                    let delivery = |pulled: PulledDelivery| Some(convert::delivery(&pulled));
                    let response = |delivery| ConsumeResponse { delivery, ..ConsumeResponse::default() };
                    self.responses.extend(self.pulled.drain(..).map(delivery).map(response));
                }
            }
        }
    }

    /// Takes in what the consumer says.
    fn take_in(&mut self, request: ConsumeRequest) -> Result<(), Status> {
        if request.acknowledgements.len() > ACKNOWLEDGEMENTS_MAX {
            return Err(status::of(Error::invalid_field("acknowledgements", "must be at most 10,000")));
        }
        let mut fenced = Vec::new();
        for proto::Acknowledgement { number, error, retry_after } in request.acknowledgements {
            let retry_after = retry_after.and_then(|wait| Duration::try_from(wait).ok());
            let acknowledgement = match error.as_str() {
                "" => Acknowledgement::Done,
                _ => Acknowledgement::Failed { error, retry_after },
            };
            let lease = Lease { epoch: self.consumer.epoch(), number };
            if self.consumer.acknowledge(lease, acknowledgement).is_err() {
                fenced.push(number);
            }
        }
        if !fenced.is_empty() {
            self.responses.push_back(ConsumeResponse { fenced, ..ConsumeResponse::default() });
        }
        if request.credits > 0 && self.ends_at.is_none() {
            self.consumer.add_credits(request.credits);
        }
        Ok(())
    }
}
