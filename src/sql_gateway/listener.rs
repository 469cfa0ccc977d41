//! Accepts the connections of analysts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::service::Service;

/// Largest number of connections. Further ones are closed at once.
const CONNECTIONS_MAX: usize = 256;
/// Longest the head of a request may take, and a connection may be idle.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(30);
/// Largest head of a request, in bytes: a statement of up to 64 KiB may stand in the
/// address.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Pause after the system had no connection to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest a stop waits for statements that run. Then they are ended.
const STOP_WAIT_MAX: Duration = Duration::from_secs(2);

/// Serves until `stop`; running requests are finished.
pub(super) async fn serve(listener: TcpListener, service: Arc<Service>, tasks: TaskTracker, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection for SQL");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::debug!(%peer, "a connection for SQL beyond {CONNECTIONS_MAX} is closed");
            continue;
        };
        let (service, stop) = (Arc::clone(&service), stop.clone());
        tasks.spawn(async move {
            connection(stream, peer, service, stop).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, service: Arc<Service>, stop: CancellationToken) {
    // Small answers are not to wait for more.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, std::convert::Infallible>(service.answer(request, peer.ip()).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(STOP_WAIT_MAX, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection for SQL ended early");
    }
}
