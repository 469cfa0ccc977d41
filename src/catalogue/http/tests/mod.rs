//! Tests of the API within the test's process, where the time can be set and secrets can be searched
//! for. Tests for any implementation are in `tests/ticketing`.

mod privacy;
mod reading;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower::ServiceExt as _;

use super::*;
use crate::clock::Clock;
use crate::domain::Timestamp;
use crate::store::SqliteStore;
use crate::summary::{SummariesSettings, TemplateSummarizer};

const TOKEN: &str = "the administrator's token";

/// A catalogue of one test.
struct TestCatalogue {
    router: Router,
    now: Arc<AtomicI64>,
    reads: Arc<Reads>,
    _dir: tempfile::TempDir,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

#[derive(Default)]
struct Reads(Mutex<HashMap<ShowId, usize>>);

#[async_trait]
impl ReadCounter for Reads {
    async fn count_read(&self, id: ShowId) {
        *self.0.lock().entry(id).or_default() += 1;
    }
}

/// Lets in who sends one other token.
struct Verifier;

#[async_trait]
impl AdminVerifier for Verifier {
    async fn verify(&self, headers: &HeaderMap) -> Result<(), Denial> {
        match headers["authorization"].to_str() {
            Ok("Bearer a.b.c") => Ok(()),
            Ok("Bearer x.y.z") => Err(Denial::Unavailable),
            _ => Err(Denial::Wrong),
        }
    }
}

impl TestCatalogue {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("catalogue.sqlite")).await.unwrap();
        let now = Arc::new(AtomicI64::new(Timestamp::parse("2030-01-01T00:00:00Z").unwrap().millis()));
        let clock = Clock::from_fn({
            let now = Arc::clone(&now);
            move || Timestamp::from_millis(now.load(Ordering::Relaxed))
        });
        let reads = Arc::new(Reads::default());
        let summaries =
            SummariesSettings { cache_bytes_max: 1 << 20, in_flight_max: 4, wait_max: Duration::from_secs(10) };
        let api = Arc::new(Api {
            catalogue: Catalogue::new(Arc::new(store), clock, Arc::new(Notify::new())),
            summaries: Summaries::new(Arc::new(TemplateSummarizer), summaries),
            tokens: AdminTokens::new([TOKEN]),
            verifier: Some(Arc::new(Verifier)),
            reads: Some(Arc::clone(&reads) as Arc<_>),
            settings: ApiSettings {
                body_bytes_max: 256 << 10,
                body_wait_max: Duration::from_secs(10),
                summary_chunk_pause: Duration::ZERO,
            },
        });
        Self { router: standalone(&api), now, reads, _dir: dir }
    }

    fn set_now(&self, text: &str) {
        self.now.store(Timestamp::parse(text).unwrap().millis(), Ordering::Relaxed);
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.router.clone().oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    async fn admin(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    /// Makes an event with these fields over good ones. Its id.
    async fn create(&self, fields: Value) -> String {
        let mut body = json!({
            "title": "Hamlet", "startAt": "2030-05-17T19:30:00Z", "endAt": "2030-05-17T22:00:00Z", "location": "Globe",
        });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let answer = self.admin("POST", "/events", &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()["id"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}
