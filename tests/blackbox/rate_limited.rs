//! Rate limits: what is over them is told when to come again, and nothing else
//! is touched by it.

use std::time::Duration;

use serde_json::{Value, json};
use tallyhouse::transport::proto::{self, IngestBatchRequest, IngestRequest};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::events::{click, now_millis};
use crate::service::TestService;

/// Clicks of one user.
fn of_user(prefix: &str, user: &str, count: usize) -> Vec<proto::Event> {
    let mut events: Vec<_> = (0..count).map(|n| click(&format!("{prefix}-{n}"), now_millis())).collect();
    events.iter_mut().for_each(|event| user.clone_into(&mut event.user_id));
    events
}

async fn send(service: &TestService, events: Vec<proto::Event>) -> Result<proto::VerdictCounts, Status> {
    let request = IngestBatchRequest { events, ..IngestBatchRequest::default() };
    service.ingest().await.ingest_batch(request).await.map(|answer| answer.into_inner().counts.unwrap())
}

/// What a refusal says: for how long, and about whom.
fn told(refusal: &Status) -> (Duration, Vec<String>) {
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    let details = refusal.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "RATE_LIMITED");
    let subjects = details.quota_failure().unwrap().violations.iter().map(|violation| violation.subject.clone());
    (details.retry_info().unwrap().retry_delay.unwrap(), subjects.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_over_its_limit_is_told_when_to_retry() {
    let limits =
        [("TALLYHOUSE_RATE_LIMIT_USER_EVENTS_PER_SECOND", "50"), ("TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS", "2")];
    let service = TestService::with(&limits).await;
    let taken = of_user("a", "ann", 100);
    assert_eq!(send(&service, taken.clone()).await.unwrap().accepted, 100);
    // A batch of several users is taken whole or not at all.
    let mixed = [of_user("b", "ann", 1), of_user("c", "bob", 3)].concat();
    let refusal = send(&service, mixed.clone()).await.unwrap_err();
    let (wait, subjects) = told(&refusal);
    assert_eq!(subjects, ["user:ann"]);
    assert!(wait <= Duration::from_millis(2_250), "{wait:?}");
    // Duplicates cost nothing, and need no room: neither for ann nor for the others.
    assert_eq!(send(&service, taken.clone()).await.unwrap().duplicate, 100);
    let mut changed = taken;
    changed.iter_mut().for_each(|event| event.seq = 1);
    assert_eq!(send(&service, changed).await.unwrap().conflict, 100);
    assert_eq!(send(&service, of_user("d", "bob", 100)).await.unwrap().accepted, 100, "bob was charged nothing");
    let mut nobody = of_user("e", "", 500);
    assert_eq!(send(&service, nobody.clone()).await.unwrap().accepted, 500, "events without users have no limit");
    // Neither do those that are no events.
    nobody.iter_mut().for_each(|event| event.r#type.clear());
    assert_eq!(send(&service, nobody).await.unwrap().rejected, 500);
    // More than ever fits is no matter of waiting.
    let never = send(&service, of_user("f", "eve", 101)).await.unwrap_err();
    assert_eq!(never.code(), Code::InvalidArgument, "{never}");
    assert!(never.message().contains("100 new events in 2 seconds"), "{never}");
    // As often as told, until there is room: bob's three and ann's one.
    let mut turns = 0;
    let mut outcome = send(&service, mixed.clone()).await;
    while let Err(refusal) = outcome {
        turns += 1;
        assert!(turns <= 3, "{refusal}");
        tokio::time::sleep(told(&refusal).0).await;
        outcome = send(&service, mixed.clone()).await;
    }
    assert_eq!(outcome.unwrap().accepted, 4);
    service.assert_stored(100 + 100 + 500 + 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_limit_ends_and_loses_nothing() {
    let limits = [("TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND", "10"), ("TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS", "1")];
    let service = TestService::with(&limits).await;
    let batch = |sequence: u64| {
        let events = of_user(&format!("batch-{sequence}"), "ann", 4);
        IngestRequest { sequence, events, durability: 0 }
    };
    let mut left: Vec<IngestRequest> = (1..=6).map(batch).collect();
    let mut streams = 0;
    while !left.is_empty() {
        streams += 1;
        assert!(streams < 10, "{} batches left", left.len());
        let requests = tokio_stream::iter(left.clone());
        let mut answers = service.ingest().await.ingest(requests).await.unwrap().into_inner();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(answer) => {
                    assert_eq!(answer.sequence, left[0].sequence, "in order");
                    assert_eq!(answer.counts.unwrap().accepted, 4);
                    left.remove(0);
                }
                Err(refusal) => {
                    let (wait, subjects) = told(&refusal);
                    assert_eq!(subjects, ["organization:default"]);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
    assert!(streams > 1, "the limit was never met");
    service.assert_stored(24).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_says_429_with_the_limit_in_its_headers() {
    let limits = [
        ("TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND", "2"),
        ("TALLYHOUSE_RATE_LIMIT_ORG_QUERIES_PER_SECOND", "3"),
        ("TALLYHOUSE_RATE_LIMIT_WINDOW_SECONDS", "1"),
    ];
    let service = TestService::with(&limits).await;
    let post = |event_id: String| {
        let time = time::OffsetDateTime::from_unix_timestamp(now_millis() / 1_000).unwrap();
        let occurred_at = time.format(&time::format_description::well_known::Rfc3339).unwrap();
        let event = json!({"event_id": event_id, "type": "click", "campaign_id": "c", "source": "s", "occurred_at": occurred_at});
        service.http.post(format!("{}/events", service.url)).json(&event).send()
    };
    let header = |answer: &reqwest::Response, name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    let first = post("e-0".to_owned()).await.unwrap();
    assert_eq!(first.status(), 202);
    assert_eq!(header(&first, "ratelimit-policy"), "\"org-events\";q=2;w=1");
    assert_eq!(header(&first, "ratelimit"), "\"org-events\";r=1");
    // The limit is met within three calls, unless the machine is too busy for that.
    let mut number = 0;
    let refused = loop {
        number += 1;
        let answer = post(format!("e-{number}")).await.unwrap();
        if answer.status() == 429 {
            break answer;
        }
        assert!(number < 500, "the limit was never met");
    };
    assert_eq!(header(&refused, "ratelimit-policy"), "\"org-events\";q=2;w=1");
    let wait: u64 = header(&refused, "retry-after").parse().unwrap();
    assert_eq!(header(&refused, "ratelimit"), format!("\"org-events\";r=0;t={wait}"));
    assert!((1..=2).contains(&wait));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "RATE_LIMITED", "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("organization:default"), "{body}");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(post(format!("e-{number}")).await.unwrap().status(), 202, "there is room when it was told");
    let ask = || service.http.get(format!("{}/users/top", service.url)).send();
    let mut asked = 0;
    let refused = loop {
        asked += 1;
        let answer = ask().await.unwrap();
        if answer.status() == 429 {
            break answer;
        }
        assert!(asked < 500, "the limit was never met");
    };
    assert_eq!(header(&refused, "ratelimit-policy"), "\"org-queries\";q=3;w=1");
    // The other contract has the same limit, and says so the same way.
    let timestamp = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let (mut number, mut statuses) = (0, std::collections::BTreeSet::new());
    while statuses.len() < 2 {
        number += 1;
        let event = json!({"event_id": format!("v1-{number}"), "event_type": "click", "timestamp": timestamp});
        let request = service.http.post(format!("{}/api/v1/events", service.url)).json(&json!({"events": [event]}));
        let answer = request.send().await.unwrap();
        assert_eq!(header(&answer, "ratelimit-policy"), "\"org-events\";q=2;w=1", "{}", answer.status());
        statuses.insert(answer.status().as_u16());
        assert!(number < 500, "the limit was never met");
    }
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), [202, 429]);
}
