//! Two organizations with the same names, users and event ids: each sees and gets its own.

use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::delivery_service_client::DeliveryServiceClient;
use tonic::Code;

use super::failing;
use crate::service::{PATIENCE, TestService};
use crate::tokens::{SECRET, Signer, channel};

fn token(org_id: &str) -> String {
    Signer::secret(SECRET).token(org_id, "ingest read admin")
}

async fn call(service: &TestService, org_id: &str, method: reqwest::Method, path: &str, body: &Value) -> (u16, Value) {
    let request = service.http.request(method.clone(), format!("{}{path}", service.url)).bearer_auth(token(org_id));
    let request = if method == reqwest::Method::GET { request } else { request.json(body) };
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_with_the_same_names_belong_to_their_organizations() {
    use reqwest::Method;
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let get = async |org_id: &str, path: &str| call(&service, org_id, Method::GET, path, &Value::Null).await;
    let same = json!({ "name": "same", "handler": { "type": "trial" }, "attempts_max": 1 });
    for org_id in ["acme", "beta"] {
        assert_eq!(call(&service, org_id, Method::POST, "/api/v1/subscriptions", &same).await.0, 201);
    }
    let own = json!({ "name": "own", "handler": { "type": "pull" } });
    assert_eq!(call(&service, "acme", Method::POST, "/api/v1/subscriptions", &own).await.0, 201);
    for (org_id, count) in [("acme", 2_u64), ("beta", 1)] {
        let events: Vec<Value> = (1..=count).map(|seq| failing("ann", seq)).collect();
        let sent = call(&service, org_id, Method::POST, "/api/v1/events", &json!({ "events": events })).await;
        assert_eq!(sent.0, 202, "{}", sent.1);
    }
    for (org_id, count) in [("acme", 2_u64), ("beta", 1), ("empty", 0)] {
        let since = std::time::Instant::now();
        loop {
            let (code, status) = get(org_id, "/api/v1/subscriptions/same/status").await;
            if count == 0 {
                assert_eq!(code, 404);
                break;
            }
            if status["dead_letters"] == count {
                break;
            }
            assert!(since.elapsed() < PATIENCE, "{status}");
        }
        let letters = get(org_id, "/api/v1/subscriptions/same/dead-letters").await.1;
        assert_eq!(letters["dead_letters"].as_array().map_or(0, Vec::len) as u64, count, "{org_id}");
        let list = get(org_id, "/api/v1/subscriptions").await.1;
        let expected = if org_id == "acme" { 2 } else { usize::try_from(count.min(1)).unwrap() };
        assert_eq!(list["subscriptions"].as_array().unwrap().len(), expected, "{org_id}");
    }
    // What only one of them has, the other does not find, whatever it does with it.
    assert_eq!(get("beta", "/api/v1/subscriptions/same/events/ann-2").await.0, 404);
    let empty = json!({});
    for (method, path) in [
        (Method::GET, "own"),
        (Method::PATCH, "own"),
        (Method::DELETE, "own"),
        (Method::POST, "own/pause"),
        (Method::POST, "own/resume"),
        (Method::GET, "own/status"),
        (Method::GET, "own/users/ann"),
        (Method::POST, "own/users/ann/pause"),
        (Method::GET, "own/dead-letters"),
    ] {
        let path = format!("/api/v1/subscriptions/{path}");
        assert_eq!(call(&service, "beta", method.clone(), &path, &empty).await.0, 404, "{method} {path}");
    }
    let (all, path) = (json!({ "all": true }), "/api/v1/subscriptions/same/dead-letters/discard");
    assert_eq!(call(&service, "beta", Method::POST, path, &all).await.1["discarded"], 1);
    assert_eq!(get("acme", "/api/v1/subscriptions/same/status").await.1["dead_letters"], 2, "those of others stay");
    assert_eq!(get("acme", "/api/v1/subscriptions/own/status").await.1["waiting"], 2);

    let mut beta = DeliveryServiceClient::new(channel(&service, &token("beta")).await);
    let first = proto::ConsumeRequest { subscription: "own".to_owned(), credits: 1, ..Default::default() };
    let refused = beta.consume(tokio_stream::iter([first])).await.expect_err("refused");
    assert_eq!(refused.code(), Code::NotFound);
    let missing = beta.get_subscription(proto::GetSubscriptionRequest { name: "own".to_owned() }).await;
    assert_eq!(missing.expect_err("refused").code(), Code::NotFound);
}
