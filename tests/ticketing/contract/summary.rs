//! The summary, as Server-Sent Events.

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, send};
use crate::service::shared;

/// Its chunks, which must end well.
fn chunks(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.header("content-type").starts_with("text/event-stream"));
    let body = answer.text.strip_suffix("event: done\ndata: {}\n\n").unwrap_or_else(|| panic!("{answer:?}"));
    let events: Vec<&str> = body.split_terminator("\n\n").collect();
    let data = |event: &&str| event.strip_prefix("data: ").unwrap_or_else(|| panic!("{event}")).to_owned();
    events.iter().map(data).collect()
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

async fn read(client: &Client, id: &Value) -> Answer {
    client.get(&format!("/public/events/{}/summary", id.as_str().unwrap())).await
}

#[tokio::test]
async fn a_summary_names_what_where_and_when_in_small_chunks() {
    let client = shared();
    let fields = json!({
        "title": "Nächte in Größenwahn", "location": "Straße 5, Köln", "status": "PUBLISHED",
        "startAt": "2100-02-28T23:30:00Z", "endAt": "2100-03-01T01:00:00Z", "internalNotes": "private",
    });
    let event = client.create(&fields).await;
    let answer = read(&client, &event["id"]).await;
    let chunks = chunks(&answer);
    assert!(chunks.iter().all(|chunk| (2..=5).contains(&words(chunk).len())), "{chunks:?}");
    let text = chunks.concat();
    let same = chunks.iter().map(|chunk| chunk.trim()).collect::<Vec<_>>().join(" ");
    assert_eq!(words(&text), words(&same), "put together either way");
    assert!((50..=100).contains(&words(&text).len()), "{text}");
    for part in ["Nächte in Größenwahn", "Straße 5, Köln", "28 February 2100", "23:30"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("private"));
    let again = read(&client, &event["id"]).await;
    assert_eq!((again.header("x-summary-cache"), &again.text), ("HIT", &answer.text));
    client.patch(event["id"].as_str().unwrap(), &json!({"status": "CANCELLED"})).await;
    let cancelled = read(&client, &event["id"]).await;
    let lower = cancelled.text.to_lowercase();
    assert!(lower.contains("cancel") && !lower.contains("book") && !lower.contains("buy"), "{lower}");
    assert_ne!(cancelled.header("etag"), answer.header("etag"));
    assert_eq!(cancelled.header("x-summary-cache"), "MISS");
}

#[tokio::test]
async fn long_titles_and_places_still_fit() {
    let client = shared();
    for word in ["w", "語", "🎭", "-"] {
        let long = vec![word; 100].join(" ");
        let event = client.create(&json!({"title": long, "location": long, "status": "PUBLISHED"})).await;
        let text = chunks(&read(&client, &event["id"]).await).concat();
        assert!((50..=100).contains(&words(&text).len()), "{text}");
    }
}

#[tokio::test]
async fn a_hundred_first_readers_get_the_same_text() {
    let client = shared();
    let title = uuid::Uuid::new_v4().to_string();
    let event = client.create(&json!({"title": title, "status": "PUBLISHED"})).await;
    let answers = join_all((0..100).map(|_| read(&client, &event["id"]))).await;
    let first = chunks(&answers[0]);
    assert!(first.concat().contains(&title));
    assert!(answers.iter().all(|answer| answer.text == answers[0].text));
    assert!(answers.iter().any(|answer| answer.header("x-summary-cache") == "MISS"));
    assert_eq!(read(&client, &event["id"]).await.header("x-summary-cache"), "HIT");
}

#[tokio::test]
async fn who_leaves_stops_nothing_for_the_others() {
    let client = shared();
    let title = uuid::Uuid::new_v4().to_string();
    let event = client.create(&json!({"title": title, "status": "PUBLISHED"})).await;
    let path = format!("/public/events/{}/summary", event["id"].as_str().unwrap());
    let mut leaving = client.request(Method::GET, &path).send().await.unwrap().bytes_stream();
    leaving.next().await.unwrap().unwrap();
    let others = (0..5).map(|_| read(&client, &event["id"]));
    drop(leaving);
    for answer in join_all(others).await {
        assert!(chunks(&answer).concat().contains(&title));
    }
}

#[tokio::test]
async fn who_has_the_text_is_not_sent_it_again() {
    let client = shared();
    let event = client.create(&json!({"status": "PUBLISHED"})).await;
    let path = format!("/public/events/{}/summary", event["id"].as_str().unwrap());
    let answer = client.get(&path).await;
    assert!(answer.headers.contains_key("cache-control"));
    let known = client.request(Method::GET, &path).header("if-none-match", answer.header("etag"));
    let known = send(known).await;
    assert_eq!((known.status, known.text.as_str(), known.header("etag")), (304, "", answer.header("etag")));
    let other = client.request(Method::GET, &path).header("if-none-match", "\"other\"");
    assert_eq!(send(other).await.status, 200);
}
