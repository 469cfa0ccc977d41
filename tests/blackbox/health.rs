//! Probes say why events are refused, for as long as they are.

use serde_json::Value;
use tallyhouse::transport::proto::{self, IngestBatchRequest};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::events::{clicks, now_millis};
use crate::house::{House, eventually, signal};

async fn send(house: &House, events: Vec<proto::Event>) -> Result<proto::IngestBatchResponse, tonic::Status> {
    let request = IngestBatchRequest { events, ..Default::default() };
    house.ingest().await.ingest_batch(request).await.map(tonic::Response::into_inner)
}

/// Sends batches of new events until one is refused, and returns how many were taken.
async fn fill(house: &House, events: usize) -> (usize, tonic::Status) {
    for batch in 0..1_000 {
        if let Err(status) = send(house, clicks(&format!("fill-{batch}"), events, now_millis())).await {
            return (batch, status);
        }
    }
    panic!("nothing was refused");
}

fn codes(body: &Value) -> Vec<&str> {
    body["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].as_str().unwrap()).collect()
}

async fn grpc_status(house: &House, service: &str) -> ServingStatus {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(house.channel().await).check(request).await.unwrap().into_inner().status()
}

/// Asserts that every probe says that events are refused, for this reason, naming this setting.
async fn assert_refusing(house: &House, code: &str, setting: &str) {
    let (status, body) = house.get("/readyz").await;
    assert_eq!((status, &body["status"]), (503, &Value::from("refusing")), "{body}");
    assert_eq!(codes(&body)[0], code, "{body}");
    let first = &body["reasons"][0];
    assert_eq!(first["refuses_events"], true, "{body}");
    assert!(first["message"].as_str().unwrap().contains(setting), "{body}");
    assert_eq!(body["error"]["code"], "UNAVAILABLE", "{body}");
    assert_eq!(house.get("/healthz").await.0, 200, "it is alive");
    for service in ["", "tallyhouse.v1.IngestService"] {
        eventually("NOT_SERVING", || async { grpc_status(house, service).await == ServingStatus::NotServing }).await;
    }
    assert_eq!(grpc_status(house, "tallyhouse.v1.QueryService").await, ServingStatus::Serving);
    let metrics = house.http.get(format!("{}/metrics", house.url)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.contains("tallyhouse_health_reason{") && line.contains(code)).unwrap();
    assert!(line.ends_with(" 1"), "{line}");
}

/// Asserts that the probes heal, although nobody sends an event.
async fn assert_heals(house: &House) {
    eventually("ready", || async { house.get("/readyz").await.1["status"] == "ready" }).await;
    eventually("SERVING", || async { grpc_status(house, "").await == ServingStatus::Serving }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_of_the_disk_is_named_to_callers_and_probes() {
    let house = House::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "3500000")], Some(4)).await;
    let engine = house.engine_pid();
    signal(engine, "STOP");
    let (batches, refusal) = fill(&house, 300).await;
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("log_free_bytes_min keeps 3500000"), "{refusal}");
    assert_refusing(&house, "DISK_RESERVE", "log_free_bytes_min").await;
    signal(engine, "CONT");
    assert_heals(&house).await;
    house.assert_counted(batches * 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_until_the_disk_takes_a_trial() {
    let house = House::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "0")], Some(4)).await;
    let engine = house.engine_pid();
    signal(engine, "STOP");
    let (batches, _) = fill(&house, 300).await;
    assert_refusing(&house, "DISK_FULL", "full").await;
    signal(engine, "CONT");
    assert_heals(&house).await;
    house.assert_counted(batches * 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_at_its_bound_and_a_full_index_are_told() {
    let house = House::with(&[("TALLYHOUSE_LOG_BYTES_MAX", "200000")]).await;
    let engine = house.engine_pid();
    signal(engine, "STOP");
    let (batches, _) = fill(&house, 200).await;
    assert_refusing(&house, "LOG_FULL", "log_bytes_max").await;
    signal(engine, "CONT");
    assert_heals(&house).await;
    house.assert_counted(batches * 200).await;

    let settings = [("TALLYHOUSE_INDEX_IDS_MAX", "1000"), ("TALLYHOUSE_BATCH_EVENTS_MAX", "250")];
    let house = House::with(&settings).await;
    let engine = house.engine_pid();
    signal(engine, "STOP");
    let (batches, _) = fill(&house, 240).await;
    assert_refusing(&house, "INDEX_FULL", "index_ids_max").await;
    signal(engine, "CONT");
    assert_heals(&house).await;
    house.assert_counted(batches * 240).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_delays_counting_degrades() {
    let house = House::new().await;
    house.store(clicks("first", 10, now_millis())).await;
    house.sql("ALTER TABLE events RENAME COLUMN seq TO seq_lost").await;
    send(&house, clicks("parked", 50, now_millis())).await.unwrap();
    eventually("a parked segment", || async { codes(&house.get("/readyz").await.1).contains(&"SEGMENTS_PARKED") })
        .await;
    signal(house.engine_pid(), "STOP");
    eventually("a ClickHouse that is away", || async {
        let (status, body) = house.get("/readyz").await;
        let found = codes(&body) == ["CLICKHOUSE_AWAY", "SEGMENTS_PARKED"];
        found && status == 200 && body["status"] == "degraded"
    })
    .await;
    assert_eq!(grpc_status(&house, "").await, ServingStatus::Serving);
    signal(house.engine_pid(), "CONT");
}
