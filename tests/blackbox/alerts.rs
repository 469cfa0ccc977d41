//! What the alerts of `deploy/` look at is so when its cause is made to happen, and is over when the cause is gone.
//! Those on disks, the log, the clock, ClickHouse and segments are in `health`, `clock` and `damage`.

use serde_json::json;

use crate::audit::closed_hour;
use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

/// The sum of a metric's series whose line contains all of these.
async fn metric(service: &TestService, name: &str, labels: &[&str]) -> f64 {
    let text = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    let has_all = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    text.lines().filter(has_all).map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_and_calls_that_are_late_are_counted_by_the_indicators() {
    let service = TestService::with(&[("TALLYHOUSE_LOG_BYTES_MAX", "200000")]).await;
    let call = "rpc_method=\"tallyhouse.v1.IngestService/IngestBatch\"";
    let in_time = async || metric(&service, "rpc_server_call_duration_seconds_bucket", &[call, "le=\"0.25\""]).await;
    let all = async || metric(&service, "rpc_server_call_duration_seconds_count", &[call]).await;
    service.store(clicks("in-time", 10, now_millis())).await;
    let late_before = all().await - in_time().await;
    signal(service.engine_pid(), "STOP");
    let mut ingest = service.ingest().await;
    let request = tallyhouse::transport::proto::IngestBatchRequest {
        events: clicks("late", 10, now_millis()),
        durability: tallyhouse::transport::proto::Durability::Stored.into(),
        ..Default::default()
    };
    let late = tokio::spawn(async move { ingest.ingest_batch(request).await });
    // The objective's bound for an acknowledgement is a quarter of a second.
    eventually("a late call", || async { metric(&service, "tallyhouse_log_age_seconds", &[]).await > 0.5 }).await;
    let post = async |n: u32| {
        let events: Vec<_> = (0..100)
            .map(|event| {
                json!({"event_id": format!("{n}-{event}"), "event_type": "click", "user_id": "ann", "campaign_id": "c",
                "timestamp": crate::analytics::rfc3339(now_millis())})
            })
            .collect();
        service.post("/api/v1/events", &json!({ "events": events })).await.0
    };
    let errors = ["http_request_method=\"POST\"", "http_route=\"/api/v1/events\"", "http_response_status_code=\"503\""];
    assert!(metric(&service, "http_server_request_duration_seconds_count", &errors).await < 0.5);
    let mut taken = 0;
    while post(taken).await == 202 {
        taken += 1;
        assert!(taken < 100, "the log is never full");
    }
    assert!(metric(&service, "http_server_request_duration_seconds_count", &errors).await > 0.5);
    signal(service.engine_pid(), "CONT");
    late.await.unwrap().unwrap();
    assert!(all().await - in_time().await > late_before + 0.5);
    service.assert_counted(20 + 100 * usize::try_from(taken).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_that_are_late_are_seen_by_their_age() {
    let service = TestService::new().await;
    service.store(clicks("first", 10, now_millis())).await;
    assert!(metric(&service, "tallyhouse_log_age_seconds", &[]).await < 10.0);
    signal(service.engine_pid(), "STOP");
    let events = clicks("late", 10, now_millis());
    let request = tallyhouse::transport::proto::IngestBatchRequest { events, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    // The objective's bound.
    eventually("an age of ten seconds", || async { metric(&service, "tallyhouse_log_age_seconds", &[]).await > 10.0 })
        .await;
    assert!(metric(&service, "tallyhouse_health_reason", &["CLICKHOUSE_AWAY"]).await > 0.0);
    signal(service.engine_pid(), "CONT");
    eventually("counted", || async { metric(&service, "tallyhouse_log_age_seconds", &[]).await < 0.1 }).await;
    service.assert_counted(20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_of_idempotency_keys_is_seen() {
    let service = TestService::with(&[("TALLYHOUSE_IDEMPOTENCY_KEYS_MAX", "1")]).await;
    let call = |key: &'static str| {
        let body = json!({"events": [{"event_id": key, "event_type": "click", "user_id": "ann",
            "timestamp": "2026-11-01T00:00:00Z"}]});
        service.http.post(format!("{}/api/v1/events", service.url)).header("Idempotency-Key", key).json(&body).send()
    };
    assert_eq!(call("first").await.unwrap().status(), 202);
    assert_eq!(call("second").await.unwrap().status(), 503);
    eventually("the reason", || async {
        metric(&service, "tallyhouse_health_reason", &["\"IDEMPOTENCY_FULL\""]).await > 0.0
    })
    .await;
    let (status, body) = service.get("/readyz").await;
    assert_eq!((status, &body["status"]), (200, &"degraded".into()), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_counts_are_seen_and_so_is_the_share_of_hours() {
    let settings =
        [("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0"), ("TALLYHOUSE_AUDIT_PAUSE_MS", "20"), ("TALLYHOUSE_AUDIT_HOURS", "4")];
    let service = TestService::with(&settings).await;
    let at = closed_hour();
    service.store(clicks("event", 100, at)).await;
    service.sql("ALTER TABLE campaign_minutes DELETE WHERE campaign_id = 'camp_1' SETTINGS mutations_sync = 2").await;
    // It has the hour looked at again.
    service.store(vec![click("late", at)]).await;
    eventually("found", || async {
        metric(&service, "tallyhouse_audit_found_total", &["campaign_minutes"]).await > 0.0
    })
    .await;
    eventually("repaired", || async {
        metric(&service, "tallyhouse_audit_checks_total", &["\"repaired\""]).await > 0.0
    })
    .await;
    service.assert_counted(101).await;
}
