//! Web pages that are open in a browser on this machine.

use prost::Message as _;
use serde_json::json;
use tallyhouse::transport::proto;

use crate::events::{click, now_millis};
use crate::service::TestService;
use crate::tokens::{SECRET, Signer};

/// The address of a service by another name.
fn port(service: &TestService) -> String {
    service.url.rsplit_once(':').unwrap().1.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_whose_name_was_rebound_to_this_machine_is_refused() {
    let service = TestService::with(&[("TALLYHOUSE_ALLOWED_HOSTS", "tally.example")]).await;
    let port = port(&service);
    let status = async |path: &str, host: String| {
        let request = service.http.get(format!("{}{path}", service.url)).header("host", host);
        request.send().await.unwrap().status().as_u16()
    };
    for path in ["/users/top", "/metrics", "/healthz", "/docs/", "/openapi.json", "/nowhere"] {
        assert_eq!(status(path, format!("attacker.example:{port}")).await, 403, "{path}");
        assert_eq!(status(path, format!("0.0.0.0:{port}")).await, 403, "{path}");
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "tally.example"] {
        assert_eq!(status("/users/top", format!("{host}:{port}")).await, 200, "{host}");
    }
    // By HTTP/2, where the host is in the request's own fields.
    let connector = tonic::transport::Endpoint::from_shared(service.url.clone()).unwrap();
    let channel = connector.origin("http://attacker.example".parse().unwrap()).connect().await.unwrap();
    let mut query = proto::query_service_client::QueryServiceClient::new(channel);
    let refused = query.get_top_users(proto::GetTopUsersRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    assert!(refused.message().contains("allowed_hosts"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_can_neither_read_nor_write() {
    let service = TestService::new().await;
    let event = json!({"event_id": "forged", "type": "click", "campaign_id": "c", "source": "s", "user_id": "u",
        "occurred_at": "2026-01-01T00:00:00Z"});
    let post = |path: &str, content_type: &str, body: Vec<u8>| {
        let request =
            service.http.post(format!("{}{path}", service.url)).header("content-type", content_type).body(body);
        request.header("sec-fetch-site", "cross-site")
    };
    let batch = proto::IngestBatchRequest { events: vec![click("forged", now_millis())], ..Default::default() };
    let message = batch.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    for origin in ["https://attacker.example", "http://localhost:3000", "null"] {
        // What a browser sends without asking first.
        for (path, content_type) in [("/events", "text/plain"), ("/events", "application/json")] {
            let body = event.to_string().into_bytes();
            let answer = post(path, content_type, body).header("origin", origin).send().await.unwrap();
            assert_eq!(answer.status(), 403, "{content_type} from {origin}");
            assert!(!answer.headers().contains_key("access-control-allow-origin"));
        }
        let path = "/tallyhouse.v1.IngestService/IngestBatch";
        let answer = post(path, "application/grpc-web+proto", framed.clone()).header("origin", origin).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "7", "grpc-web from {origin}");
        let answer = service.http.get(format!("{}/events", service.url)).header("origin", origin).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{origin}");
        // And what it asks first is not allowed.
        let preflight = service.http.request(reqwest::Method::OPTIONS, format!("{}/events", service.url));
        let preflight = preflight.header("origin", origin).header("access-control-request-method", "DELETE");
        let answer = preflight.send().await.unwrap();
        assert!(!answer.headers().contains_key("access-control-allow-origin"), "{origin}");
    }
    // Without an origin, as an image or a form of old browsers.
    let answer = post("/events", "text/plain", event.to_string().into_bytes()).send().await.unwrap();
    assert_eq!(answer.status(), 403);
    service.assert_counted(0).await;
    // The service's own pages may.
    let own = service.http.get(format!("{}/events", service.url)).header("origin", service.url.clone());
    assert_eq!(own.header("sec-fetch-site", "same-origin").send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_a_page_of_another_origin_cannot_read() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let get = service.http.get(format!("{}/users/top", service.url)).header("origin", "https://attacker.example");
    let answer = get.bearer_auth(Signer::secret(SECRET).token("acme", "read")).send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
}
