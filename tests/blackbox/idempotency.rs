//! Idempotency keys: a call is made once, and its answer given again.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::analytics::event;
use crate::events::{click, now_millis};
use crate::service::{TestService, signal};
use crate::tokens::{SECRET, Signer};

/// An event that is to be given an id.
fn nameless(source: &str) -> Value {
    let mut event = event("");
    event["source"] = json!(source);
    event
}

/// Status, whether it was replayed, and body.
async fn post(service: &TestService, key: &str, body: &Value) -> (u16, bool, Value) {
    post_as(service, "", key, body).await
}

async fn post_as(service: &TestService, token: &str, key: &str, body: &Value) -> (u16, bool, Value) {
    let request = service.http.post(format!("{}/api/v1/events", service.url)).header("Idempotency-Key", key).json(body);
    let answer = if token.is_empty() { request } else { request.bearer_auth(token) }.send().await.unwrap();
    let replayed = answer.headers().get("idempotency-replayed").map(|value| value.to_str().unwrap().to_owned());
    assert!(replayed.is_none() || replayed.as_deref() == Some("true"));
    (answer.status().as_u16(), replayed.is_some(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_calls_at_once_share_one_answer() {
    let mut service = TestService::new().await;
    let body = json!({ "events": [nameless("a"), nameless("b"), event("own"), event("own"), {"event_type": "x"}] });
    let calls = join_all((0..50).map(|_| post(&service, "once", &body))).await;
    assert_eq!(calls.iter().filter(|(_, replayed, _)| *replayed).count(), 49);
    let (status, _, first) = &calls[0];
    assert_eq!((*status, &first["accepted"], &first["duplicates"]), (202, &json!(3), &json!(1)), "{first}");
    assert_eq!(first["rejected"].as_array().unwrap().len(), 1);
    for (status, _, answer) in &calls {
        assert_eq!((*status, answer), (202, first));
    }
    service.assert_counted(3).await;
    let ids = service.sql("SELECT countIf(match(event_id, '^[0-9a-f]{8}-[0-9a-f]{4}-7')) FROM events").await;
    assert_eq!(ids, "2");

    // Another body is refused, as is another order.
    let other = json!({ "events": [nameless("b"), nameless("a"), event("own"), event("own"), {"event_type": "x"}] });
    let (status, replayed, body_of) = post(&service, "once", &other).await;
    assert_eq!((status, replayed, &body_of["error"]["code"]), (422, false, &json!("IDEMPOTENCY_KEY_REUSED")));
    // All rejected: that answer is kept, too.
    let bad = json!({ "events": [{"event_id": "x"}] });
    let (status, replayed, refused) = post(&service, "bad", &bad).await;
    assert_eq!((status, replayed), (422, false));
    assert_eq!(post(&service, "bad", &bad).await, (422, true, refused.clone()));

    for _ in 0..2 {
        service.kill();
        service.start().await;
        assert_eq!(post(&service, "once", &body).await, (202, true, first.clone()));
        assert_eq!(post(&service, "bad", &bad).await, (422, true, refused.clone()));
        assert_eq!(post(&service, "once", &other).await.0, 422);
    }
    // Under another key it is another call, with other ids.
    let (status, replayed, answer) = post(&service, "twice", &body).await;
    assert_eq!((status, replayed, &answer["accepted"], &answer["duplicates"]), (202, false, &json!(2), &json!(2)));
    service.assert_counted(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_organizations_own() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let body = json!({ "events": [nameless("a")] });
    for org_id in ["acme", "beta"] {
        let token = Signer::secret(SECRET).token(org_id, "ingest read");
        for replayed in [false, true] {
            let (status, was_replayed, answer) = post_as(&service, &token, "same", &body).await;
            assert_eq!((status, was_replayed, &answer["accepted"]), (202, replayed, &json!(1)), "{org_id}");
        }
    }
    // Refusals are not kept.
    let (status, _, _) = post_as(&service, "bad", "other", &body).await;
    assert_eq!(status, 401);
    let token = Signer::secret(SECRET).token("acme", "ingest");
    let (status, replayed, _) = post_as(&service, &token, "other", &body).await;
    assert_eq!((status, replayed), (202, false));
    for key in ["", &"x".repeat(256)] {
        let (status, _, answer) = post_as(&service, &token, key, &body).await;
        assert_eq!((status, &answer["error"]["details"][0]["field"]), (422, &json!("Idempotency-Key")));
    }
}

/// A batch of events without ids.
fn batch(key: &str, durability: proto::Durability) -> proto::IngestBatchRequest {
    let at = now_millis() - 1_000;
    let events = (0..20).map(|n| proto::Event { seq: n, ..click("", at) }).collect();
    proto::IngestBatchRequest { events, durability: durability.into(), idempotency_key: key.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_killed_before_its_answer_counts_once() {
    let mut service = TestService::new().await;
    let request = batch("broken-off", proto::Durability::Stored);
    signal(service.engine_pid(), "STOP");
    let mut ingest = service.ingest().await;
    let sent = request.clone();
    let call = tokio::spawn(async move { ingest.ingest_batch(sent).await });
    // The events are on disk; the answer waits for ClickHouse.
    crate::service::eventually("events in the log", || {
        let logged = std::fs::read_dir(service.log_dir()).unwrap().flatten();
        let bytes: u64 = logged.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum();
        async move { bytes > 1_000 }
    })
    .await;
    assert!(!call.is_finished());
    let engine = service.engine_pid();
    service.kill();
    signal(engine, "KILL");
    assert!(call.await.unwrap().is_err());
    service.start().await;
    let mut ingest = service.ingest().await;
    let answer = ingest.ingest_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.counts.unwrap().accepted, answer.replayed, answer.results.len()), (20, false, 0));
    let again = ingest.ingest_batch(request).await.unwrap().into_inner();
    assert_eq!((again.counts, again.replayed), (answer.counts, true));
    service.assert_counted(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_rest_keep_the_same_calls() {
    let service = TestService::new().await;
    let mut ingest = service.ingest().await;
    let request = batch("shared", proto::Durability::Logged);
    let first = ingest.ingest_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.counts.unwrap().accepted, first.replayed), (20, false));
    let mut other = request.clone();
    other.events[3].seq = 99;
    let status = ingest.ingest_batch(other).await.unwrap_err();
    let reason = status.get_error_details().error_info().unwrap().reason.clone();
    assert_eq!((status.code(), &*reason), (Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED"));
    // What the answer is to promise is a part of the call.
    let stored = proto::IngestBatchRequest { durability: proto::Durability::Stored.into(), ..request.clone() };
    let status = ingest.ingest_batch(stored).await.unwrap_err();
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "IDEMPOTENCY_KEY_REUSED");
    let long = proto::IngestBatchRequest { idempotency_key: "x".repeat(256), ..request.clone() };
    assert_eq!(ingest.ingest_batch(long).await.unwrap_err().code(), Code::InvalidArgument);

    // What is rejected is named by the id it was given, the same each time.
    let mut mixed = batch("mixed", proto::Durability::Logged);
    mixed.events[1].r#type = "two words".to_owned();
    let first = ingest.ingest_batch(mixed.clone()).await.unwrap().into_inner();
    let again = ingest.ingest_batch(mixed).await.unwrap().into_inner();
    assert!(first.results[0].event_id.len() == 36 && again.replayed && !first.replayed);
    assert_eq!((first.counts, first.results), (again.counts, again.results));

    // The same events, sent over REST.
    let at = crate::analytics::rfc3339(request.events[0].occurred_at.as_ref().unwrap().seconds * 1_000);
    let over_grpc = proto::Event { occurred_at: Some(crate::events::timestamp(0)), ..click("", 0) };
    let millis = time::OffsetDateTime::parse(&at, &time::format_description::well_known::Rfc3339).unwrap();
    let over_grpc =
        proto::Event { occurred_at: Some(crate::events::timestamp(millis.unix_timestamp() * 1_000)), ..over_grpc };
    let over_rest = json!({ "events": [{
        "event_type": "click", "campaign_id": over_grpc.campaign_id, "creative_id": over_grpc.creative_id,
        "source": over_grpc.source, "user_id": over_grpc.user_id, "timestamp": at,
    }] });
    let request = proto::IngestBatchRequest {
        events: vec![over_grpc],
        idempotency_key: "either".to_owned(),
        ..Default::default()
    };
    assert!(!ingest.ingest_batch(request).await.unwrap().into_inner().replayed);
    let (status, replayed, answer) = post(&service, "either", &over_rest).await;
    assert_eq!((status, replayed, &answer["accepted"]), (202, true, &json!(1)));
    service.assert_counted(40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_full_refuses_new_keys_and_keeps_old_ones() {
    let service = TestService::with(&[("TALLYHOUSE_IDEMPOTENCY_KEYS_MAX", "2")]).await;
    let body = json!({ "events": [nameless("a")] });
    assert_eq!(post(&service, "a", &body).await.0, 202);
    assert_eq!(post(&service, "b", &body).await.0, 202);
    let (status, _, answer) = post(&service, "c", &body).await;
    assert_eq!((status, &answer["error"]["code"]), (503, &json!("OVERLOADED")));
    let (status, replayed, _) = post(&service, "a", &body).await;
    assert_eq!((status, replayed), (202, true));
    assert_eq!(service.post("/api/v1/events", &json!({ "events": [event("without")] })).await.0, 202);
    service.assert_counted(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_keys_until_it_has_room_and_forgets_none() {
    let mut service = TestService::unstarted_with_key_disk(&[], 512);
    let body = json!({ "events": [nameless("a"), nameless("b")] });
    service.start().await;
    let (_, _, first) = post(&service, "first", &body).await;
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    assert_eq!(post(&service, "first", &body).await, (202, true, first.clone()));
    let filler = service.key_disk().join("filler");
    let filled = std::fs::write(&filler, vec![1; 1 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull, "{filled}");

    // Some find room in the file as it is.
    let mut answered = Vec::new();
    let refused = loop {
        let key = format!("key-{}", answered.len());
        let (status, _, answer) = post(&service, &key, &body).await;
        if status == 503 {
            assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
            break key;
        }
        assert_eq!(status, 202, "{answer}");
        answered.push((key, answer));
        assert!(answered.len() < 10_000, "the disk is never full");
    };
    // Said for as long as it is so, although nobody calls: for longer than a single refusal is remembered.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(11) {
        let (status, health) = service.get("/readyz").await;
        let reasons = health["reasons"].as_array().unwrap();
        assert_eq!((status, &health["status"], reasons.len()), (200, &json!("degraded"), 1), "{health}");
        assert_eq!(reasons[0]["code"], "IDEMPOTENCY_UNAVAILABLE", "{health}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(service.stderr().matches("could not store idempotency keys").count(), 1, "it is logged once");
    let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tallyhouse_health_reason{code=\"IDEMPOTENCY_UNAVAILABLE\"} 1"), "{metrics}");
    assert_eq!(post(&service, "another", &body).await.0, 503);
    assert_eq!(service.post("/api/v1/events", &json!({ "events": [event("without")] })).await.0, 202);

    std::fs::remove_file(&filler).unwrap();
    crate::service::eventually("ready", || async { service.get("/readyz").await.1["status"] == "ready" }).await;
    assert_eq!(post(&service, "first", &body).await, (202, true, first));
    for (key, answer) in &answered {
        assert_eq!(post(&service, key, &body).await, (202, true, answer.clone()), "{key}");
    }
    // Whether their events were logged or not, they are accepted once.
    for key in [refused.as_str(), "another"] {
        let (status, _, answer) = post(&service, key, &body).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(2)), "{answer}");
    }
    service.assert_counted(2 * (answered.len() + 3) + 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_has_gone_is_answered_to_the_next() {
    let service = TestService::new().await;
    signal(service.engine_pid(), "STOP");
    let request = batch("gone", proto::Durability::Stored);
    let mut ingest = service.ingest().await;
    let left = tokio::time::timeout(Duration::from_millis(500), ingest.ingest_batch(request.clone())).await;
    assert!(left.is_err(), "it waits for ClickHouse");
    signal(service.engine_pid(), "CONT");
    let answer = ingest.ingest_batch(request).await.unwrap().into_inner();
    // The first call went on alone; its answer is this one's.
    assert_eq!((answer.counts.unwrap().accepted, answer.replayed), (20, true));
    service.assert_counted(20).await;
}
