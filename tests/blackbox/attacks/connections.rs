//! Connections that are opened and left alone.

use tokio::net::TcpStream;

use super::client::assert_serves;
use crate::events::{click, now_millis};
use crate::service::{TestService, eventually};

async fn idle(service: &TestService, count: usize) -> Vec<TcpStream> {
    let address = service.url.strip_prefix("http://").unwrap();
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    connections
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_give_way_to_new_ones() {
    let service = TestService::with(&[("TALLYHOUSE_CONNECTIONS_MAX", "50")]).await;
    // A stream that is in use is the last to go.
    let (requests, received) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(received);
    let mut answers = service.ingest().await.ingest(stream).await.unwrap().into_inner();
    let idle = idle(&service, 1_000).await;
    let (status, readiness) = service.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(readiness["reasons"].to_string().contains("CONNECTIONS_FULL"), "{readiness}");
    assert_serves(&service, None).await;
    let request =
        tallyhouse::transport::proto::IngestRequest { events: vec![click("a", now_millis())], ..Default::default() };
    requests.send(request).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().counts.unwrap().accepted, 1);
    drop(idle);
    eventually("health to be well", || async { service.get("/readyz").await.1["status"] == "ready" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_descriptors_to_log_and_database() {
    let service = TestService::with_descriptors(&[], 256).await;
    let _idle = idle(&service, 600).await;
    for n in 0..20 {
        service.store(vec![click(&format!("e-{n}"), now_millis())]).await;
        assert_serves(&service, None).await;
    }
    service.assert_counted(20).await;
}
