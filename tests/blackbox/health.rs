//! Probes say why events are refused, for as long as they are.

use serde_json::Value;
use tallyhouse::transport::proto::{self, IngestBatchRequest};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::events::{clicks, now_millis};
use crate::service::{TestService, eventually, signal};

async fn send(service: &TestService, events: Vec<proto::Event>) -> Result<proto::IngestBatchResponse, tonic::Status> {
    let request = IngestBatchRequest { events, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.map(tonic::Response::into_inner)
}

/// Sends batches of new events until one is refused, and returns how many were taken.
async fn fill(service: &TestService, events: usize) -> (usize, tonic::Status) {
    for batch in 0..1_000 {
        if let Err(status) = send(service, clicks(&format!("fill-{batch}"), events, now_millis())).await {
            return (batch, status);
        }
    }
    panic!("nothing was refused");
}

fn codes(body: &Value) -> Vec<&str> {
    body["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

async fn grpc_status(service: &TestService, grpc_service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: grpc_service.to_owned() };
    HealthClient::new(service.channel().await).check(request).await.unwrap().into_inner().status()
}

/// Asserts that every probe says that events are refused, for this reason, naming this setting.
async fn assert_refusing(service: &TestService, code: &str, setting: &str) {
    let (status, body) = service.get("/readyz").await;
    assert_eq!((status, &body["status"]), (503, &Value::from("refusing")), "{body}");
    assert_eq!(codes(&body)[0], code, "{body}");
    let first = &body["reasons"][0];
    assert_eq!(first["refuses_events"], true, "{body}");
    assert!(first["message"].as_str().unwrap().contains(setting), "{body}");
    assert_eq!(body["error"]["code"], "UNAVAILABLE", "{body}");
    assert_eq!(service.get("/healthz").await.0, 200, "it is alive");
    for grpc_service in ["", "tallyhouse.v1.IngestService"] {
        eventually("NOT_SERVING", || async { grpc_status(service, grpc_service).await == ServingStatus::NotServing })
            .await;
    }
    assert_eq!(grpc_status(service, "tallyhouse.v1.QueryService").await, ServingStatus::Serving);
    let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.contains("tallyhouse_health_reason{") && line.contains(code)).unwrap();
    assert!(line.ends_with(" 1"), "{line}");
}

/// Asserts that the probes heal, although nobody sends an event.
async fn assert_heals(service: &TestService) {
    eventually("ready", || async { service.get("/readyz").await.1["status"] == "ready" }).await;
    eventually("SERVING", || async { grpc_status(service, "").await == ServingStatus::Serving }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_the_disk_is_named_to_callers_and_probes() {
    let service = TestService::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "3500000")], 4).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let (batches, refusal) = fill(&service, 300).await;
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("log_free_bytes_min keeps 3500000"), "{refusal}");
    assert_refusing(&service, "DISK_RESERVE", "log_free_bytes_min").await;
    signal(engine, "CONT");
    assert_heals(&service).await;
    service.assert_counted(batches * 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_until_the_disk_takes_a_trial() {
    let service = TestService::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "0")], 4).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let (batches, _) = fill(&service, 300).await;
    assert_refusing(&service, "DISK_FULL", "full").await;
    signal(engine, "CONT");
    assert_heals(&service).await;
    service.assert_counted(batches * 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_its_bound_and_a_full_index_are_told() {
    let service = TestService::with(&[("TALLYHOUSE_LOG_BYTES_MAX", "200000")]).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let (batches, _) = fill(&service, 200).await;
    assert_refusing(&service, "LOG_FULL", "log_bytes_max").await;
    signal(engine, "CONT");
    assert_heals(&service).await;
    service.assert_counted(batches * 200).await;

    let settings = [("TALLYHOUSE_INDEX_IDS_MAX", "1000"), ("TALLYHOUSE_BATCH_EVENTS_MAX", "250")];
    let service = TestService::with(&settings).await;
    // Ids that the ledger cannot take stay in memory.
    let (ledger, away) = (service.data_dir().join("ledger"), service.data_dir().join("ledger-away"));
    std::fs::rename(&ledger, &away).unwrap();
    let (batches, _) = fill(&service, 240).await;
    assert_refusing(&service, "INDEX_FULL", "index_ids_max").await;
    std::fs::rename(&away, &ledger).unwrap();
    assert_heals(&service).await;
    service.assert_counted(batches * 240).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_is_told_until_it_can() {
    let service = TestService::new().await;
    let (log, away) = (service.data_dir().join("log"), service.data_dir().join("log-away"));
    std::fs::rename(&log, &away).unwrap();
    // The open segment and the next one have their files.
    let (batches, refusal) = fill(&service, 1_000).await;
    assert_eq!(refusal.code(), Code::Unavailable, "{refusal}");
    assert!(!refusal.message().contains("log-away"), "{refusal}");
    assert_refusing(&service, "LOG_UNWRITABLE", "log lines").await;
    std::fs::rename(&away, &log).unwrap();
    assert_heals(&service).await;
    service.assert_counted(batches * 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_delays_counting_degrades() {
    let service = TestService::new().await;
    service.store(clicks("first", 10, now_millis())).await;
    service.sql("ALTER TABLE events RENAME COLUMN seq TO seq_lost").await;
    send(&service, clicks("parked", 50, now_millis())).await.unwrap();
    eventually("a parked segment", || async { codes(&service.get("/readyz").await.1).contains(&"SEGMENTS_PARKED") })
        .await;
    signal(service.engine_pid(), "STOP");
    eventually("a ClickHouse that is away", || async {
        let (status, body) = service.get("/readyz").await;
        let found = codes(&body) == ["CLICKHOUSE_AWAY", "SEGMENTS_PARKED"];
        found && status == 200 && body["status"] == "degraded"
    })
    .await;
    assert_eq!(grpc_status(&service, "").await, ServingStatus::Serving);
    signal(service.engine_pid(), "CONT");
}
