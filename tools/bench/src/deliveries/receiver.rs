//! A receiver of webhooks that reads each request and answers 204.

use std::convert::Infallible;
use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A running receiver. Dropping it ends it.
pub(super) struct Receiver {
    /// Where it is.
    pub(super) url: String,
    body_bytes: Arc<Mutex<Vec<usize>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    /// Starts it on a free port of 127.0.0.1.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let body_bytes = Arc::<Mutex<Vec<usize>>>::default();
        let server = tokio::spawn(accept(listener, Arc::clone(&body_bytes)));
        Ok(Self { url, body_bytes, server })
    }

    /// The sizes of the bodies that came since it was last asked.
    pub(super) fn take_body_bytes(&self) -> Vec<usize> {
        mem::take(&mut self.body_bytes.lock())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Serves connections until it is aborted, and they with it.
async fn accept(listener: TcpListener, body_bytes: Arc<Mutex<Vec<usize>>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&body_bytes)));
    }
}

async fn serve(stream: TcpStream, body_bytes: Arc<Mutex<Vec<usize>>>) {
    let _ = stream.set_nodelay(true); // It is slower without.
    let answer = service_fn(move |request: Request<Incoming>| answer(request, Arc::clone(&body_bytes)));
    // An error is one of the client's, which reports it.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(
    request: Request<Incoming>,
    body_bytes: Arc<Mutex<Vec<usize>>>,
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    match request.into_body().collect().await {
        Ok(body) => {
            body_bytes.lock().push(body.to_bytes().len());
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    Ok(response)
}
