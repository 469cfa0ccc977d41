//! Streams that are opened and left alone.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::client::assert_serves;
use crate::events::{click, now_millis};
use crate::service::TestService;
use crate::tokens::{SECRET, Signer, channel};
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tallyhouse::transport::proto::{IngestRequest, IngestResponse};

struct Open {
    requests: tokio::sync::mpsc::Sender<IngestRequest>,
    answers: tonic::Streaming<IngestResponse>,
}

async fn open(service: &TestService, token: &str) -> Result<Open, tonic::Status> {
    let (requests, received) = tokio::sync::mpsc::channel(1);
    let stream = tokio_stream::wrappers::ReceiverStream::new(received);
    let answers = IngestServiceClient::new(channel(service, token).await).ingest(stream).await?.into_inner();
    Ok(Open { requests, answers })
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_of_one_organization_keep_nobody_out() {
    let settings = [("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_STREAMS_MAX", "40")];
    let service = TestService::with(&settings).await;
    let [acme, beta] = ["acme", "beta"].map(|org| Signer::secret(SECRET).token(org, "ingest read"));
    let mut streams = Vec::new();
    for _ in 0..10 {
        streams.push(open(&service, &acme).await.expect("within its quarter"));
    }
    for _ in 0..10 {
        let refused = open(&service, &acme).await.err().expect("a refusal");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert!(refused.message().contains("of this organization"), "{refused}");
    }
    let mut of_beta = open(&service, &beta).await.expect("others have theirs");
    of_beta
        .requests
        .send(IngestRequest { events: vec![click("b", now_millis())], ..Default::default() })
        .await
        .unwrap();
    assert_eq!(of_beta.answers.message().await.unwrap().unwrap().counts.unwrap().accepted, 1);
    assert_serves(&service, Some(&beta)).await;
    // A stream that ends makes room for another.
    drop(streams.pop());
    crate::service::eventually("room", || async { open(&service, &acme).await.is_ok() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_sends_nothing_ends_and_may_be_opened_again() {
    let service = TestService::with(&[("TALLYHOUSE_STREAM_IDLE_MS_MAX", "700")]).await;
    let mut stream = open(&service, "none").await.unwrap();
    for sequence in 0..3 {
        let request =
            IngestRequest { sequence, events: vec![click(&sequence.to_string(), now_millis())], durability: 0 };
        stream.requests.send(request).await.unwrap();
        assert_eq!(stream.answers.message().await.unwrap().unwrap().sequence, sequence);
    }
    let ended = stream.answers.message().await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable);
    assert!(ended.message().contains("open another stream"), "{ended}");
    assert!(ended.get_details_retry_info().is_some());
    assert!(open(&service, "none").await.is_ok());
    service.assert_counted(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_connection_may_have_so_many_streams() {
    let service = TestService::with(&[("TALLYHOUSE_STREAMS_PER_CONNECTION_MAX", "3")]).await;
    let mut client = service.ingest().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.ingest(tokio_stream::pending()).await.unwrap());
    }
    let refused = client.ingest(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(open(&service, "none").await.is_ok(), "another connection has its own");
}
