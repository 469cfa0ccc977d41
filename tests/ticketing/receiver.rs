//! A receiver of webhooks, which checks them as the standard's own library does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The secret that services and receivers share.
pub(crate) const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// Whether attempts are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// Each at once.
    Answers,
    /// None, ever.
    Hangs,
}

/// A webhook receiver that verifies signatures and records deliveries. Dropping it closes its port.
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    serving: JoinHandle<()>,
}

/// An attempt that came in, with a good signature.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) id: String,
    pub(crate) body: Value,
}

impl Got {
    /// What it is about: its type and the event's id.
    pub(crate) fn about(&self) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&self.body["type"]), text(&self.body["data"]["event"]["id"]))
    }
}

type Shared = (Arc<Mutex<Vec<Got>>>, Behavior);

async fn receive(State((got, behavior)): State<Shared>, headers: HeaderMap, body: Bytes) -> StatusCode {
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&body, &headers).unwrap();
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    got.lock().unwrap().push(Got { id, body: serde_json::from_slice(&body).unwrap() });
    if behavior == Behavior::Hangs {
        std::future::pending::<()>().await;
    }
    StatusCode::NO_CONTENT
}

impl Receiver {
    /// On a free port.
    pub(crate) async fn new(behavior: Behavior) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), behavior).await
    }

    /// On the port of one that has gone.
    pub(crate) async fn at(address: SocketAddr, behavior: Behavior) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, got) = (listener.local_addr().unwrap(), Arc::default());
        let router = Router::new().route("/hook", post(receive)).with_state((Arc::clone(&got), behavior));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, got, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The attempts so far.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
