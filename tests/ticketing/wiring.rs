//! The catalogue as a part of Tallyhouse.

use std::process::Command;

use reqwest::Method;
use serde_json::json;

use crate::client::{Client, send};
use crate::service::Service;

const SECRET: &str = "a secret for tests that is long enough";

/// A token of the service, as `tallyhouse token` makes it.
fn token(org: &str, scope: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["token", "--org", org, "--scope", scope]).env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET);
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_routes_refuse_every_other_token() {
    let service = Service::start(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]);
    let (own, main) = (service.client(), service.client_of_main_port());
    let event = own.create(&json!({"status": "PUBLISHED"})).await;
    let path = format!("/events/{}", event["id"].as_str().unwrap());
    let admin = token("acme", "admin");
    let mut changed = admin.clone();
    changed.pop();
    let bad = [
        token("acme", "read"),
        token("acme", "ingest"),
        token("acme", "ingest read"),
        changed,
        "garbage".to_owned(),
        "a.b.c".to_owned(),
        String::new(),
        "a".repeat(10_000),
    ];
    for client in [&own, &main] {
        for (method, path) in [
            (Method::GET, "/events"),
            (Method::POST, "/events"),
            (Method::GET, path.as_str()),
            (Method::PATCH, path.as_str()),
            (Method::GET, "/notifications"),
            (Method::POST, "/notifications/msg_1/retry"),
        ] {
            for token in &bad {
                let answer = send(client.request(method.clone(), path).bearer_auth(token)).await;
                assert_eq!((answer.status, answer.code().as_str()), (401, "UNAUTHORIZED"), "{method} {path} {token}");
                assert!(answer.header("www-authenticate").starts_with("Bearer realm="));
            }
            for token in [admin.as_str(), service.token()] {
                let answer = send(client.request(method.clone(), path).bearer_auth(token)).await;
                assert!(![401, 403, 500].contains(&answer.status), "{method} {path}: {answer:?}");
            }
        }
        for path in ["/public/events", "/openapi.json", &format!("/public{path}"), &format!("/public{path}/summary")] {
            assert_eq!(client.get(path).await.status, 200, "{path}");
        }
    }
    // The catalogue's own tokens are good for nothing else.
    let other = Client::new(service.main_url(), service.token());
    assert_eq!(other.admin_get("/events").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_ports_serve_the_same_catalogue_through_the_same_layers() {
    let service =
        Service::start(&[("TALLYHOUSE_BODY_BYTES_MAX", "100000"), ("TALLYHOUSE_CORS_ORIGINS", "https://app.example")]);
    let (own, main) = (service.client(), service.client_of_main_port());
    let made = main.post(&crate::client::with(&json!({"status": "PUBLISHED"}))).await;
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), format!("/ticketing/events/{id}"));
    let twin = own.post(&crate::client::with(&json!({}))).await;
    assert_eq!(twin.header("location"), format!("/events/{}", twin.json()["id"].as_str().unwrap()));
    assert_eq!(own.admin_get(&format!("/events/{id}")).await.json(), made.json());
    for (client, server) in [(&own, "/"), (&main, "/ticketing")] {
        let description = client.get("/openapi.json").await.json();
        assert_eq!(description["servers"][0]["url"], server);
        assert!(description["paths"]["/public/events/{id}/summary"].is_object());
        assert_eq!(client.get("/docs/").await.status, 200);
        let request = client.request(Method::GET, "/public/events").header("x-request-id", "mine");
        assert_eq!(send(request).await.header("x-request-id"), "mine");
        let too_large = client.admin_request(Method::POST, "/events").header("content-type", "application/json");
        assert_eq!(send(too_large.body(" ".repeat(100_001))).await.code(), "TOO_LARGE");
        let preflight = client
            .request(Method::OPTIONS, &format!("/events/{id}"))
            .header("origin", "https://app.example")
            .header("access-control-request-method", "PATCH")
            .header("access-control-request-headers", "authorization,if-match,content-type");
        let preflight = send(preflight).await;
        assert!(preflight.header("access-control-allow-methods").contains("PATCH"), "{preflight:?}");
        assert!(preflight.header("access-control-allow-headers").contains("if-match"), "{preflight:?}");
        let read = client.request(Method::GET, &format!("/public/events/{id}")).header("origin", "https://app.example");
        let read = send(read).await;
        assert_eq!(read.header("access-control-allow-origin"), "https://app.example");
        assert!(read.header("access-control-expose-headers").contains("etag"), "{read:?}");
        let unknown = client.get("/nothing").await;
        assert_eq!((unknown.status, unknown.code().as_str()), (404, "NOT_FOUND"));
        let wrong = send(client.request(Method::DELETE, "/events")).await;
        assert_eq!((wrong.status, wrong.code().as_str()), (405, "METHOD_NOT_ALLOWED"));
    }
    // The counting routes are not on the catalogue's port.
    assert_eq!(own.get("/campaigns/top").await.status, 404);
    let log = service.log();
    assert!(log.contains("path=\"/ticketing/public/events/{id}\""), "{log}");
    assert!(log.contains("New event created: Hamlet"), "{log}");
}

#[test]
fn a_catalogue_without_administrators_is_refused() {
    let refused = |settings: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        let dir = tempfile::tempdir().unwrap();
        command.args(["serve", "--listen", "127.0.0.1:0", "--clickhouse-url", "http://127.0.0.1:1", "--data-dir"]);
        let ran = command.arg(dir.path()).envs(settings.iter().copied()).output().unwrap();
        assert!(!ran.status.success());
        String::from_utf8(ran.stderr).unwrap()
    };
    let none = refused(&[("TALLYHOUSE_TICKETING", "true")]);
    assert!(none.contains("ticketing_admin_tokens"), "{none}");
    let tokens = ("TALLYHOUSE_TICKETING_ADMIN_TOKENS", "a");
    let listen = refused(&[("TALLYHOUSE_TICKETING_LISTEN", "nowhere"), tokens]);
    assert!(listen.contains("ticketing_listen"), "{listen}");
    let secret = refused(&[
        ("TALLYHOUSE_TICKETING", "true"),
        tokens,
        ("TALLYHOUSE_TICKETING_WEBHOOK_URL", "http://127.0.0.1:1/"),
        ("TALLYHOUSE_TICKETING_WEBHOOK_SECRET", "not base64!"),
    ]);
    assert!(secret.contains("ticketing_webhook_secret") && !secret.contains("not base64!"), "{secret}");
}
