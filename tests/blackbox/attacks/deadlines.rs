//! Calls that would go on for ever: their deadlines are kept here.

use prost::Message as _;
use tallyhouse::transport::proto;

use super::client::send;
use crate::events::{click, now_millis};
use crate::service::{PATIENCE, TestService, signal};

const ORIGIN: &str = "https://app.example";

/// Calls by grpc-web from a page, with a time-out. Returns the answer's
/// headers, and its body as text.
async fn call(service: &TestService, rpc: &str, message: &[u8], timeout: &str) -> (reqwest::header::HeaderMap, String) {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(message);
    let request =
        service.http.post(format!("{}/{rpc}", service.url)).header("content-type", "application/grpc-web+proto");
    let request = request.header("origin", ORIGIN).header("grpc-timeout", timeout).header("x-request-id", "mine");
    let answer = tokio::time::timeout(PATIENCE, request.body(framed).send()).await.expect("an answer").unwrap();
    let headers = answer.headers().clone();
    let body = tokio::time::timeout(PATIENCE, answer.bytes()).await.expect("an end").unwrap();
    (headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_runs_out_is_said_to_browsers_too() {
    let service = TestService::with(&[("TALLYHOUSE_CORS_ORIGINS", ORIGIN)]).await;
    service.store(vec![click("a", now_millis())]).await;
    signal(service.engine_pid(), "STOP");
    let batch = proto::IngestBatchRequest {
        events: vec![click("b", now_millis())],
        durability: proto::Durability::Stored.into(),
        ..Default::default()
    };
    let (headers, body) =
        call(&service, "tallyhouse.v1.IngestService/IngestBatch", &batch.encode_to_vec(), "300m").await;
    signal(service.engine_pid(), "CONT");
    let is_said = headers.get("grpc-status").is_some_and(|status| status == "4") || body.contains("grpc-status:4");
    assert!(is_said, "{headers:?} {body}");
    assert_eq!(headers["access-control-allow-origin"], ORIGIN);
    assert_eq!(headers["x-request-id"], "mine");
    // The event was taken all the same, and counts once.
    service.assert_counted(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_at_its_deadline_after_its_headers() {
    let service = TestService::with(&[("TALLYHOUSE_CORS_ORIGINS", ORIGIN)]).await;
    let (headers, body) = call(&service, "tallyhouse.v1.OutcomeService/Watch", &[], "400m").await;
    assert!(!headers.contains_key("grpc-status") && body.contains("grpc-status:4"), "{headers:?} {body}");
    assert_eq!(headers["access-control-allow-origin"], ORIGIN);
    assert_eq!(headers["x-request-id"], "mine");
    // The same by gRPC, in trailers.
    let mut attacker = super::client::Attacker::connect(&service, 1 << 16).await;
    let path = "/tallyhouse.v1.OutcomeService/Watch";
    let (answer, mut message) = attacker.begin_call(path, &[("grpc-timeout", "400m")]).await.unwrap();
    send(&mut message, &[0; 5], true);
    assert_eq!(super::client::grpc_status(answer).await, Some(4));
}
