//! Starting, stopping, and leaving nothing behind.

use std::path::Path;
use std::process::{Command, Stdio};

use tallyhouse::transport::proto::{self, IngestRequest};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::events::{clicks, now_millis};
use crate::service::{TestService, eventually};

fn is_running(pid: u32) -> bool {
    // A process that has ended but was not waited for is a zombie.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_answers_what_is_under_way_and_exits_with_0() {
    let mut service = TestService::new().await;
    let (requests, received) = tokio::sync::mpsc::channel(4);
    let mut ingest = service.ingest().await;
    let mut answers = ingest.ingest(ReceiverStream::new(received)).await.unwrap().into_inner();
    for sequence in 0..3 {
        let events = clicks(&format!("batch-{sequence}"), 100, now_millis());
        requests.send(IngestRequest { sequence, events, durability: 0 }).await.unwrap();
    }
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 0);
    // All three have been read once all are counted; two answers have not been taken.
    eventually("all are counted", || async { service.sql("SELECT count() FROM events").await == "300" }).await;
    let engine = service.engine_pid();
    let mut health = HealthClient::new(service.channel().await);
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::Serving);

    service.signal("TERM");
    assert_eq!(watch.next().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // What was read before is answered, then the stream ends.
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 1);
    assert_eq!(answers.next().await.unwrap().unwrap().sequence, 2);
    assert!(answers.next().await.is_none_or(|end| end.is_err()));
    drop((requests, answers, watch, ingest, health));
    assert_eq!(service.stop(), Some(0));
    eventually("no engine", || async { !is_running(engine) }).await;
    let left = std::fs::read_dir(service.log_dir()).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).filter(|name| name != "lock" && name != "held").collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "the log was forwarded");
    service.start().await;
    service.assert_counted(300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_leaves_no_engine_behind() {
    let mut service = TestService::new().await;
    let engine = service.engine_pid();
    service.kill();
    eventually("no engine", || async { !is_running(engine) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_has_one_owner() {
    let service = TestService::new().await;
    let second = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["serve", "--listen", "127.0.0.1:0", "--clickhouse-url", &service.clickhouse_url, "--data-dir"])
        .arg(service.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_ne!(second.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"), "{second:?}");
}

#[test]
fn serve_refuses_what_is_not_safe() {
    let check = |args: &[&str], expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse")).arg("serve").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{args:?}: {text}");
    };
    check(&[], "TALLYHOUSE_CLICKHOUSE_URL");
    check(&["--clickhouse-url", "http://127.0.0.1:1", "--listen", "0.0.0.0:0"], "authentication");
    check(&["--clickhouse-url", "http://127.0.0.1:1", "--segment-rows-max", "0"], "segment_rows_max");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_segment_is_listed_and_retried_by_command() {
    let service = TestService::new().await;
    service.store(clicks("first", 10, now_millis())).await;
    // A table that cannot take the rows, until it is mended.
    service.sql("ALTER TABLE events RENAME COLUMN seq TO seq_lost").await;
    let request =
        proto::IngestBatchRequest { events: clicks("parked", 50, now_millis()), durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request.clone()).await.unwrap();
    let mut segments = proto::segment_service_client::SegmentServiceClient::new(service.channel().await);
    let list = |mut client: proto::segment_service_client::SegmentServiceClient<_>| async move {
        client.list_segments(proto::ListSegmentsRequest {}).await.unwrap().into_inner().segments
    };
    eventually("a parked segment", || {
        let listed = list(segments.clone());
        async move { listed.await.iter().any(|segment| segment.state() == proto::SegmentState::Parked) }
    })
    .await;
    let (status, body) = service.get("/readyz").await;
    assert_eq!((status, &body["status"]), (200, &serde_json::json!("degraded")));
    let parked = list(segments.clone()).await;
    assert!(!parked[0].last_error.is_empty());
    // Its events are known all the same.
    let counts = service.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
    assert_eq!(counts.duplicate, 50);

    service.sql("ALTER TABLE events RENAME COLUMN seq_lost TO seq").await;
    let retried = segments.retry_parked_segments(proto::RetryParkedSegmentsRequest {}).await.unwrap().into_inner();
    assert_eq!(retried.segments, 1);
    service.assert_counted(60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_at_a_url_is_used_instead() {
    let engine = TestService::new().await;
    let password = std::fs::read_to_string(engine.data_dir().join("clickhouse/password")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["migrate", "--clickhouse-user", "tallyhouse", "--clickhouse-database", "tallyhouse"])
        .env("TALLYHOUSE_CLICKHOUSE_URL", &engine.clickhouse_url)
        .env("TALLYHOUSE_CLICKHOUSE_PASSWORD", password.trim())
        .arg("--data-dir")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!Path::new(dir.path()).join("clickhouse").exists(), "no engine of its own");
}
