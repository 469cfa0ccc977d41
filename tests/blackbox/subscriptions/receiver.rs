//! A receiver of webhooks: checks every signature, and notes what it was sent and what it answered.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

/// A webhook that came.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) id: String,
    pub(super) user: String,
    pub(super) seq: u64,
    pub(super) attempt: u64,
    pub(super) is_replay: bool,
    pub(super) gaps: Vec<u64>,
    pub(super) status: u16,
    pub(super) traceparent: Option<String>,
}

#[derive(Default)]
struct Log {
    received: Mutex<Vec<Received>>,
    secret: Mutex<String>,
    /// What is answered to everything; by default what the properties say.
    answer: Mutex<Option<u16>>,
}

/// A running receiver. Dropping it ends it.
pub(super) struct Receiver {
    pub(super) url: String,
    log: Arc<Log>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let log = Arc::<Log>::default();
        let router = axum::Router::new().fallback(receive).with_state(Arc::clone(&log));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, log, server }
    }

    /// From now on, webhooks must be signed with this.
    pub(super) fn expect_secret(&self, secret: &str) {
        secret.clone_into(&mut self.log.secret.lock());
    }

    /// From now on, everything is answered with this status; none: as the properties say.
    pub(super) fn answer(&self, status: Option<u16>) {
        *self.log.answer.lock() = status;
    }

    /// Everything that came, in order.
    pub(super) fn received(&self) -> Vec<Received> {
        self.log.received.lock().clone()
    }

    /// The ids that were answered with success, in order.
    pub(super) fn handled(&self) -> Vec<String> {
        let received = self.received().into_iter();
        received.filter(|received| received.status < 300).map(|received| received.id).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(State(log): State<Arc<Log>>, headers: HeaderMap, body: String) -> StatusCode {
    let secret = log.secret.lock().clone();
    let is_signed =
        standardwebhooks::Webhook::new(&secret).is_ok_and(|key| key.verify(body.as_bytes(), &headers).is_ok());
    if !is_signed {
        return StatusCode::UNAUTHORIZED;
    }
    let body: Value = serde_json::from_str(&body).unwrap();
    let data = &body["data"];
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    assert_eq!(data["event_id"], id);
    let must_fail = data["properties"]["fail"] == true && data["replay"] == false;
    let status = log.answer.lock().unwrap_or(if must_fail { 500 } else { 204 });
    log.received.lock().push(Received {
        id,
        user: data["user_id"].as_str().unwrap().to_owned(),
        seq: data["seq"].as_u64().unwrap_or_default(),
        attempt: data["attempt"].as_u64().unwrap(),
        is_replay: data["replay"].as_bool().unwrap(),
        gaps: data["gaps"].as_array().unwrap().iter().filter_map(Value::as_u64).collect(),
        status,
        traceparent: headers.get("traceparent").map(|value| value.to_str().unwrap().to_owned()),
    });
    StatusCode::from_u16(status).unwrap()
}
