//! Consumers that pull over gRPC: credits, acknowledgements, leases and epochs.

use std::time::{Duration, Instant};

use serde_json::json;
use tallyhouse::transport::proto::delivery_service_client::DeliveryServiceClient;
use tallyhouse::transport::proto::{self, ConsumeRequest, ConsumeResponse, Delivery};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::{create, event, send, service, service_with, status};
use crate::service::{PATIENCE, TestService};

/// A consumer's stream.
pub(super) struct Consumer {
    requests: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
    epoch: u64,
}

impl Consumer {
    pub(super) async fn connect(service: &TestService, subscription: &str, credits: u32) -> Result<Self, Status> {
        let (requests, received) = mpsc::channel(64);
        let first = ConsumeRequest { subscription: subscription.to_owned(), credits, ..Default::default() };
        requests.send(first).await.unwrap();
        let mut client = DeliveryServiceClient::new(service.channel().await);
        let stream = tokio_stream::wrappers::ReceiverStream::new(received);
        let mut responses = client.consume(stream).await?.into_inner();
        let epoch = responses.message().await?.unwrap().epoch;
        Ok(Self { requests, responses, epoch })
    }

    async fn response(&mut self) -> Result<Option<ConsumeResponse>, Status> {
        tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("a response in time")
    }

    pub(super) async fn delivery(&mut self) -> Delivery {
        self.response().await.unwrap().unwrap().delivery.expect("a delivery")
    }

    pub(super) async fn acknowledge(&self, number: u64, error: &str, credits: u32) {
        let acknowledgement = proto::Acknowledgement { number, error: error.to_owned(), retry_after: None };
        let request = ConsumeRequest { acknowledgements: vec![acknowledgement], credits, ..Default::default() };
        self.requests.send(request).await.unwrap();
    }
}

fn id(delivery: &Delivery) -> &str {
    &delivery.event.as_ref().unwrap().event_id
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_share_a_subscription_by_credits_and_keep_each_users_order() {
    let mut service = service().await;
    let pull = json!({ "name": "jobs", "handler": { "type": "pull" }, "backoff_ms_min": 5, "backoff_ms_max": 10 });
    create(&service, &pull).await;
    send(&service, &[event("ann", 2), event("ann", 1), event("bob", 1)]).await;
    let (mut one, mut two) =
        (Consumer::connect(&service, "jobs", 1).await.unwrap(), Consumer::connect(&service, "jobs", 0).await.unwrap());
    assert!(two.epoch > one.epoch);
    let first = one.delivery().await;
    assert_eq!((first.attempt, first.is_replay), (1, false));
    two.requests.send(ConsumeRequest { credits: 9, ..Default::default() }).await.unwrap();
    let second = two.delivery().await;
    let mut ids = [id(&first), id(&second)];
    ids.sort_unstable();
    assert_eq!(ids, ["ann-1", "bob-1"], "a user's next event waits for the first");
    status(&service, "jobs", |status| status["consumers"] == 2 && status["in_flight"] == 2).await;

    one.acknowledge(first.number, "", 0).await;
    two.acknowledge(second.number, "it does not work", 0).await;
    let mut rest = Vec::new();
    for _ in 0..2 {
        let delivery = two.delivery().await;
        two.acknowledge(delivery.number, "", 0).await;
        rest.push(delivery);
    }
    let again = rest.iter().find(|delivery| delivery.attempt == 2).expect("the failed one again");
    assert_eq!(id(again), id(&second));
    let done = status(&service, "jobs", |status| status["waiting"] == 0).await;
    assert_eq!((&done["processed"], &done["retries"], &done["failed"]), (&json!(3), &json!(1), &json!(0)));

    // An acknowledgement of what is not leased has no effect.
    two.acknowledge(first.number, "", 0).await;
    assert_eq!(two.response().await.unwrap().unwrap().fenced, [first.number]);
    // The stop ends streams in order, and the restart repeats nothing.
    assert_eq!(service.stop(), Some(0));
    assert!(matches!(one.response().await, Ok(None)), "an end without an error");
    service.start().await;
    send(&service, &[event("ann", 3)]).await;
    let mut three = Consumer::connect(&service, "jobs", 5).await.unwrap();
    assert_eq!(id(&three.delivery().await), "ann-3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lasts_longer_than_a_request_may_take_to_arrive() {
    const BODY_WAIT: Duration = Duration::from_millis(300);
    let service = service_with(&[("TALLYHOUSE_BODY_WAIT_MS_MAX", &BODY_WAIT.as_millis().to_string())]).await;
    create(&service, &json!({ "name": "jobs", "handler": { "type": "pull" } })).await;
    let mut consumer = Consumer::connect(&service, "jobs", 1).await.unwrap();
    let since = Instant::now();
    for seq in 1.. {
        send(&service, &[event("ann", seq)]).await;
        let delivery = consumer.delivery().await;
        consumer.acknowledge(delivery.number, "", 1).await;
        if since.elapsed() > 3 * BODY_WAIT {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_is_fenced_and_another_consumer_gets_the_event() {
    let service = service().await;
    let pull = json!({
        "name": "jobs", "handler": { "type": "pull" }, "timeout_ms": 300, "backoff_ms_min": 1, "backoff_ms_max": 1,
    });
    create(&service, &pull).await;
    send(&service, &[event("ann", 1)]).await;
    let mut slow = Consumer::connect(&service, "jobs", 1).await.unwrap();
    let lost = slow.delivery().await;
    let mut other = Consumer::connect(&service, "jobs", 1).await.unwrap();
    let again = other.delivery().await;
    assert_eq!((id(&again), again.attempt), ("ann-1", 2));
    slow.acknowledge(lost.number, "", 0).await;
    assert_eq!(slow.response().await.unwrap().unwrap().fenced, [lost.number]);
    // One that is cut off loses its leases.
    drop(other);
    let mut third = Consumer::connect(&service, "jobs", 1).await.unwrap();
    let last = third.delivery().await;
    assert_eq!((id(&last), last.attempt), ("ann-1", 3));
    third.acknowledge(last.number, "no", 0).await;
    status(&service, "jobs", |status| status["dead_letters"] == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_subscription_and_others_are_refused() {
    let mut service = service().await;
    create(&service, &json!({ "name": "jobs", "handler": { "type": "pull" } })).await;
    create(&service, &json!({ "name": "trial", "handler": { "type": "trial" } })).await;
    let code = async |name: &str| Consumer::connect(&service, name, 1).await.err().map(|status| status.code());
    assert_eq!(code("unknown").await, Some(Code::NotFound));
    assert_eq!(code("").await, Some(Code::NotFound));
    assert_eq!(code("trial").await, Some(Code::InvalidArgument));

    send(&service, &[event("ann", 1)]).await;
    let mut consumer = Consumer::connect(&service, "jobs", 1).await.unwrap();
    assert_eq!(id(&consumer.delivery().await), "ann-1");
    // The handler is replaced: what the consumer had goes to the new one, and is no attempt.
    let change = json!({ "handler": { "type": "trial" } });
    let changed = service.http.patch(format!("{}/api/v1/subscriptions/jobs", service.url)).json(&change).send().await;
    assert_eq!(changed.unwrap().status(), 200);
    assert_eq!(consumer.response().await.expect_err("an end").code(), Code::Unavailable);
    let ended = status(&service, "jobs", |status| status["processed"] == 1).await;
    assert_eq!((&ended["retries"], &ended["consumers"]), (&json!(0), &json!(0)));

    // A consumer that has something when the service stops: no attempt either.
    create(&service, &json!({ "name": "stop", "handler": { "type": "pull" } })).await;
    send(&service, &[event("bob", 1)]).await;
    let mut consumer = Consumer::connect(&service, "stop", 1).await.unwrap();
    assert_eq!(consumer.delivery().await.attempt, 1);
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    let mut consumer = Consumer::connect(&service, "stop", 1).await.unwrap();
    let again = consumer.delivery().await;
    assert_eq!((id(&again), again.attempt), ("bob-1", 1));
}
