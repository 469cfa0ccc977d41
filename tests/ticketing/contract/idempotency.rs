//! Calls that can be repeated.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, send, with};
use crate::service::shared;

async fn create(client: &Client, key: &str, body: &Value) -> Answer {
    send(client.admin_request(Method::POST, "/events").header("Idempotency-Key", key).json(body)).await
}

fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[tokio::test]
async fn a_key_makes_one_event_and_has_one_answer() {
    let (client, key) = (shared(), new_key());
    let body = with(&json!({"title": key, "internalNotes": "a"}));
    let answers = join_all((0..20).map(|_| create(&client, &key, &body))).await;
    let first = &answers[0];
    assert!(answers.iter().all(|answer| answer.status == 201 && answer.text == first.text), "{answers:?}");
    let replayed = answers.iter().filter(|answer| answer.headers.contains_key("idempotency-replayed")).count();
    assert_eq!(replayed, 19, "all but one are told that they are not the first");
    let id = first.json()["id"].as_str().unwrap().to_owned();
    client.patch(&id, &json!({"status": "PUBLISHED"})).await;
    let later = create(&client, &key, &body).await;
    assert_eq!((later.status, &later.text), (201, &first.text), "the first answer, not the present event");
    assert_eq!(later.header("idempotency-replayed"), "true");
    let other = create(&client, &key, &with(&json!({"title": "other"}))).await;
    assert_eq!((other.status, other.code().as_str()), (422, "IDEMPOTENCY_KEY_REUSED"));
}

#[tokio::test]
async fn a_refused_call_does_not_use_its_key() {
    let (client, key) = (shared(), new_key());
    assert_eq!(create(&client, &key, &json!({})).await.status, 400);
    assert_eq!(create(&client, &key, &with(&json!({}))).await.status, 201);
    let long = "x".repeat(256);
    assert_eq!(create(&client, &long, &with(&json!({}))).await.code(), "VALIDATION_ERROR");
    assert_eq!(create(&client, &format!("{}{key}", "x".repeat(200)), &with(&json!({}))).await.status, 201);
}
