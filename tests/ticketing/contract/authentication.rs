//! Who may do what.

use reqwest::Method;
use serde_json::json;

use crate::client::send;
use crate::service::shared;

#[tokio::test]
async fn administrators_need_a_token_and_the_public_does_not() {
    let client = shared();
    let event = client.create(&json!({"status": "PUBLISHED"})).await;
    let path = format!("/events/{}", event["id"].as_str().unwrap());
    for (method, path) in [
        (Method::GET, "/events"),
        (Method::POST, "/events"),
        (Method::GET, path.as_str()),
        (Method::PATCH, path.as_str()),
        (Method::GET, "/events/none"),
    ] {
        for authorization in [None, Some("Bearer"), Some("Bearer wrong"), Some("Basic YTpi"), Some("Bearer a.b.c")] {
            let mut request = client.request(method.clone(), path).body("not JSON");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            let answer = send(request).await;
            let refused = (answer.status, answer.code());
            assert_eq!(refused, (401, "UNAUTHORIZED".to_owned()), "{method} {path} {authorization:?}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
    for path in ["/public/events", &format!("/public{path}"), &format!("/public{path}/summary")] {
        for authorization in ["Bearer wrong", "nonsense"] {
            let request = client.request(Method::GET, path).header("authorization", authorization);
            assert_eq!(send(request).await.status, 200, "{path}");
        }
        assert_eq!(client.get(path).await.status, 200, "{path}");
    }
}
