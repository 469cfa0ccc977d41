//! Every way in has the same answer to the same batch: gRPC alone and on a stream, REST, with a key
//! and without.

use serde_json::{Value, json};
use tallyhouse::transport::proto::{self, IngestBatchRequest, IngestRequest};
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::analytics::event;
use crate::events::{clicks, now_millis};
use crate::service::TestService;

/// Why a batch was refused: the code for programs, and the message.
type Refusal = (String, String);

fn of_status(status: &Status) -> Refusal {
    (status.get_error_details().error_info().unwrap().reason.clone(), status.message().to_owned())
}

fn of_body(body: &Value) -> Refusal {
    let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

async fn unary(service: &TestService, key: &str, events: Vec<proto::Event>) -> Refusal {
    let request = IngestBatchRequest { events, idempotency_key: key.to_owned(), ..Default::default() };
    of_status(&service.ingest().await.ingest_batch(request).await.unwrap_err())
}

async fn stream(service: &TestService, events: Vec<proto::Event>) -> Refusal {
    let requests = tokio_stream::iter([IngestRequest { sequence: 1, events, durability: 0 }]);
    let mut answers = service.ingest().await.ingest(requests).await.unwrap().into_inner();
    of_status(&answers.next().await.unwrap().unwrap_err())
}

async fn rest(service: &TestService, key: &str, prefix: &str, count: usize) -> Refusal {
    let events: Vec<Value> = (0..count).map(|n| event(&format!("{prefix}-{n}"))).collect();
    let request = service.http.post(format!("{}/api/v1/events", service.url)).json(&json!({ "events": events }));
    let request = if key.is_empty() { request } else { request.header("Idempotency-Key", key) };
    of_body(&request.send().await.unwrap().json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_refuses_the_same_batch_for_the_same_reason() {
    let settings = [
        ("TALLYHOUSE_BATCH_EVENTS_MAX", "95"),
        ("TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND", "1"),
        ("TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS", "90"),
    ];
    let service = TestService::with(&settings).await;
    let now = now_millis();
    let check = async |prefix: &str, count: usize, expected: &Refusal| {
        let events = || clicks(prefix, count, now);
        assert_eq!(&unary(&service, "", events()).await, expected, "unary");
        assert_eq!(&unary(&service, &format!("{prefix}-grpc"), events()).await, expected, "unary with a key");
        assert_eq!(&stream(&service, events()).await, expected, "stream");
        assert_eq!(&rest(&service, "", prefix, count).await, expected, "REST");
        assert_eq!(&rest(&service, &format!("{prefix}-rest"), prefix, count).await, expected, "REST with a key");
    };
    let refusal = |code: &str, message: &str| (code.to_owned(), message.to_owned());
    let too_many = refusal("TOO_LARGE", "a batch may hold at most 95 events; this one has 96");
    check("many", 96, &too_many).await;
    let never = "organization:default may have 90 new events in 90 seconds; this batch alone has 91";
    check("never", 91, &refusal("TOO_LARGE", never)).await;

    let taken = service.store(clicks("taken", 90, now)).await;
    assert_eq!(taken.counts.unwrap().accepted, 90);
    let over = "over the limit of 90 in 90 seconds: organization:default; nothing of this call was taken";
    let over = refusal("RATE_LIMITED", over);
    check("over", 2, &over).await;
    let at = crate::analytics::rfc3339(now);
    let single = json!({ "event_id": "over", "type": "click", "campaign_id": "c", "source": "s", "occurred_at": at });
    let (status, body) = service.post("/events", &single).await;
    assert_eq!((status, of_body(&body)), (429, over));
    // A call that was refused is not remembered under its key: it may have another body now.
    assert_eq!(unary(&service, "over-grpc", clicks("other", 96, now)).await, too_many);
    assert_eq!(unary(&service, "over-grpc", clicks("other", 2, now)).await.0, "RATE_LIMITED");
    service.assert_counted(90).await;
}
