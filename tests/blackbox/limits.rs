//! Every bound holds, says so, and loses nothing that is valid beside it.

use serde_json::json;
use tallyhouse::transport::proto::{self, IngestBatchRequest, IngestRequest, RejectionCode, Verdict};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

const DAY: i64 = 86_400_000;

async fn send(service: &TestService, events: Vec<proto::Event>) -> Result<proto::IngestBatchResponse, tonic::Status> {
    let request = IngestBatchRequest { events, durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.map(tonic::Response::into_inner)
}

/// A valid event as REST has it.
fn rest_event(event_id: &str, millis: i64) -> serde_json::Value {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
    let occurred_at = time.format(&time::format_description::well_known::Rfc3339).unwrap();
    json!({"event_id": event_id, "type": "click", "campaign_id": "c", "source": "s", "user_id": "u", "occurred_at": occurred_at})
}

/// Asserts that REST says what the contract has for overload.
async fn assert_overloaded(answer: reqwest::Response, message: &str) {
    assert_eq!(answer.status(), 503);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait} seconds");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "OVERLOADED", "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains(message), "{body}");
    assert_eq!(body["error"]["details"], json!([]), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_event_is_rejected_alone_with_every_field_named() {
    let service = TestService::with(&[("TALLYHOUSE_RETENTION_DAYS", "10"), ("TALLYHOUSE_TEXT_BYTES_MAX", "20")]).await;
    let now = now_millis();
    let good = click("good", now);
    let bad = |change: &dyn Fn(&mut proto::Event)| {
        let mut event = click("bad", now);
        change(&mut event);
        event
    };
    let events = vec![
        good.clone(),
        bad(&|event| event.event_id.clear()),
        bad(&|event| event.occurred_at = None),
        bad(&|event| event.occurred_at.as_mut().unwrap().nanos = -1),
        bad(&|event| event.occurred_at.as_mut().unwrap().seconds = i64::MAX),
        bad(&|event| event.occurred_at.as_mut().unwrap().seconds += 3_600),
        bad(&|event| event.occurred_at.as_mut().unwrap().seconds -= 11 * 86_400),
        bad(&|event| event.campaign_id = "x".repeat(21)),
        bad(&|event| event.properties = "[1]".to_owned()),
        bad(&|event| event.properties = "{".to_owned()),
        bad(&|event| {
            event.r#type = "no spaces".to_owned();
            event.user_id = "\u{7}".to_owned();
        }),
        click("good too", now),
    ];
    let answer = send(&service, events).await.unwrap();
    let counts = answer.counts.unwrap();
    assert_eq!((counts.accepted, counts.rejected), (2, 10));
    let told: Vec<(u32, RejectionCode, Vec<&str>)> = answer
        .results
        .iter()
        .map(|result| {
            assert_eq!(result.verdict(), Verdict::Rejected);
            (result.index, result.code(), result.errors.iter().map(|error| error.field.as_str()).collect())
        })
        .collect();
    let invalid = RejectionCode::Invalid;
    assert_eq!(
        told,
        [
            (1, invalid, vec!["event_id"]),
            (2, invalid, vec!["occurred_at"]),
            (3, invalid, vec!["occurred_at"]),
            (4, invalid, vec!["occurred_at"]),
            (5, RejectionCode::InFuture, vec!["occurred_at"]),
            (6, RejectionCode::TooOld, vec!["occurred_at"]),
            (7, invalid, vec!["campaign_id"]),
            (8, invalid, vec!["properties"]),
            (9, invalid, vec!["properties"]),
            (10, invalid, vec!["type", "user_id"]),
        ]
    );
    assert!(answer.results[6].errors[0].message.contains("20 bytes"), "the limit is named");
    service.assert_counted(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_its_limit_is_refused_with_the_limit() {
    let service =
        TestService::with(&[("TALLYHOUSE_BATCH_EVENTS_MAX", "100"), ("TALLYHOUSE_MESSAGE_BYTES_MAX", "65536")]).await;
    let now = now_millis();
    let error = send(&service, clicks("many", 101, now)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("100 events"), "{error}");
    let mut large = click("large", now);
    large.properties = format!("{{\"x\":\"{}\"}}", "y".repeat(70_000));
    let error = send(&service, vec![large]).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("65536 bytes"), "{error}");
    // On a stream, what came before is answered first.
    let requests = [10, 101].map(|count| IngestRequest {
        sequence: count,
        events: clicks("stream", usize::try_from(count).unwrap(), now),
        durability: 0,
    });
    let mut answers = service.ingest().await.ingest(tokio_stream::iter(requests)).await.unwrap().into_inner();
    assert_eq!(answers.next().await.unwrap().unwrap().counts.unwrap().accepted, 10);
    assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::InvalidArgument);
    service.assert_counted(10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_its_bound_refuses_and_recovers() {
    let service = TestService::with(&[("TALLYHOUSE_LOG_BYTES_MAX", "200000")]).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let now = now_millis();
    let mut accepted = Vec::new();
    let refusal = loop {
        let events = clicks(&format!("fill-{}", accepted.len()), 200, now);
        match send(&service, events.clone()).await {
            Ok(_) => accepted.push(events),
            Err(status) => break status,
        }
        assert!(accepted.len() < 100, "the bound does not hold");
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("200000 bytes"), "{refusal}");
    assert!(refusal.get_error_details().retry_info().unwrap().retry_delay.is_some());
    // The same over REST. (A few events may find the room that a batch did not.)
    let (mut large, mut sent) = (rest_event("large-0", now), 0);
    large["metadata"] = json!({"x": "y".repeat(10_000)});
    let refusal = loop {
        large["event_id"] = format!("large-{sent}").into();
        let answer = service.http.post(format!("{}/events", service.url)).json(&large).send().await.unwrap();
        if answer.status() != 202 {
            break answer;
        }
        sent += 1;
        assert!(sent < 100, "the bound does not hold");
    };
    assert_overloaded(refusal, "200000 bytes").await;
    // What is wrong is still told from what is refused, and duplicates are still recognised.
    let event = json!({"event_id": "one", "type": "click", "campaign_id": "c", "source": "s",
        "user_id": "u", "occurred_at": "2999-01-01T00:00:00Z"});
    assert_eq!(service.post("/events", &event).await.0, 422);
    let counts = send(&service, accepted[0].clone()).await.unwrap().counts.unwrap();
    assert_eq!(counts.duplicate, 200);
    signal(engine, "CONT");
    let refused = clicks(&format!("fill-{}", accepted.len()), 200, now);
    service.store(refused).await;
    service.assert_counted((accepted.len() + 1) * 200 + sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_corrupts_nothing_and_recovers() {
    let mut service = TestService::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "0")], 4).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let now = now_millis();
    let mut accepted = 0;
    let refusal = loop {
        match send(&service, clicks(&format!("fill-{accepted}"), 300, now)).await {
            Ok(_) => accepted += 1,
            Err(status) => break status,
        }
        assert!(accepted < 1_000, "the disk never fills");
    };
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    // Refused again and again, and nothing of it is found later.
    for _ in 0..5 {
        send(&service, clicks(&format!("fill-{accepted}"), 300, now)).await.unwrap_err();
    }
    signal(engine, "CONT");
    service.store(clicks(&format!("fill-{accepted}"), 300, now)).await;
    service.assert_counted((accepted + 1) * 300).await;
    assert_eq!(service.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_does_not_read_is_held_back() {
    let service = TestService::new().await;
    let (requests, received) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(received);
    let mut answers = service.ingest().await.ingest(stream).await.unwrap().into_inner();
    // Answers with a result for every event are large: nobody takes them.
    let bad: Vec<proto::Event> = (0..2_000).map(|_| proto::Event::default()).collect();
    let mut sent = 0;
    let patience = std::time::Duration::from_secs(2);
    while let Ok(Ok(())) = tokio::time::timeout(
        patience,
        requests.send(IngestRequest { sequence: sent, events: bad.clone(), durability: 0 }),
    )
    .await
    {
        sent += 1;
        assert!(sent < 2_000, "nobody holds the producer back");
    }
    // And when it reads, every batch is answered, in order.
    drop(requests);
    for sequence in 0..sent {
        assert_eq!(answers.next().await.unwrap().unwrap().sequence, sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_is_taken_once_clickhouse_is_back() {
    let service = TestService::with(&[
        ("TALLYHOUSE_INDEX_IDS_MAX", "1000"),
        ("TALLYHOUSE_BATCH_EVENTS_MAX", "250"),
        ("TALLYHOUSE_INSERT_BACKOFF_MS_MAX", "200"),
    ])
    .await;
    let now = now_millis();
    for minute in 0..5 {
        service.store(clicks(&format!("old-{minute}"), 250, now - DAY + minute * 60_000)).await;
    }
    let engine = service.engine_pid();
    signal(engine, "KILL");
    let answer = send(&service, vec![click("late", now - 2 * DAY), click("punctual", now)]).await.unwrap();
    let counts = answer.counts.unwrap();
    assert_eq!(counts.accepted + counts.undecided, 2, "{counts:?}");
    eventually("the late event to be taken", || async {
        let counts = send(&service, vec![click("late", now - 2 * DAY)]).await.unwrap().counts.unwrap();
        counts.undecided == 0
    })
    .await;
    service.assert_counted(5 * 250 + 2).await;
}
