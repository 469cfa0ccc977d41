//! The one port: everything on one listener, and its end in good order. The
//! ticketing catalogue may have another one to itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;

use super::call::CallLayer;
use super::front::FrontLayer;
use super::grpc::health::Health;
use super::serving::Serving;
use super::{Application, grpc, incoming, rest, ticketing};

/// How often an idle HTTP/2 connection is asked whether it is still there, and
/// how long it may take to say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_WAIT: Duration = Duration::from_secs(20);
/// Requests of one HTTP/2 connection at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// Bytes that may be on their way to one request, and to one connection, before
/// they are read. A stream that is not read must leave room for its neighbours.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// How long cut-off connections are given to notice.
const CUT_OFF_WAIT: Duration = Duration::from_millis(500);

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The service's own description is broken.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the server failed: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// Serves gRPC, grpc-web and REST, and the ticketing catalogue alone on a
/// listener of its own if there is one, until `shutdown`. Then health says so,
/// streams answer what they have read and end, requests are finished, and it
/// returns; at the latest after [`crate::config::Config::shutdown_wait_ms_max`],
/// when what is left is cut off.
pub async fn serve(
    app: Arc<Application>,
    listener: TcpListener,
    ticketing_listener: Option<TcpListener>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let config = &app.config;
    let (wait_max, age_ms_max) = (config.shutdown_wait(), config.connection_age_ms_max);
    let serving = Serving::new(app);
    let (mut health, health_service) = Health::new().await;
    let mut router = grpc::routes(&serving, health_service)?.merge(rest::routes(&serving));
    if let Some(api) = &serving.app.ticketing {
        router = router.merge(ticketing::routes(api, ticketing::PREFIX));
    }
    let routes = Routes::from(rest::with_fallbacks(router)).prepare();

    let mut server = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if age_ms_max > 0 {
        // Without a grace: tonic would cut connections off after it without
        // having asked them to go. Streams end by themselves, see `Drain`.
        server = server.max_connection_age(Duration::from_millis(age_ms_max));
    }

    let cut_off = CancellationToken::new();
    let connections = incoming::connections(listener, cut_off.clone());
    let reasons = Arc::clone(&serving.app.health);
    let last_connection = async {
        // Dropped before the end is said: nothing must say SERVING after it.
        let _ = shutdown.run_until_cancelled(health.follow(&reasons)).await;
        serving.drain.begin();
        health.stopping().await;
        // Until the streams have ended, probes and those who come back with
        // a last request still find somebody.
        let _ = tokio::time::timeout(wait_max / 2, serving.drain.streams_ended()).await;
        health.stopped().await;
    };
    let calls = CallLayer::new(&serving.app.config, &serving.app.metrics);
    let front = FrontLayer::new(Arc::clone(&serving.gate), &serving.app.config.cors_origins);
    let gate = Arc::clone(&serving.gate);
    serving.app.metrics.observe_calls(move || gate.in_flight());
    let layered = server.layer(calls).layer(front);
    let ticketing_served = ticketing_listener.zip(serving.app.ticketing.as_ref()).map(|(listener, api)| {
        let routes = Routes::from(rest::with_fallbacks(ticketing::routes(api, ""))).prepare();
        let connections = incoming::connections(listener, cut_off.clone());
        layered.clone().serve_with_incoming_shutdown(routes, connections, shutdown.clone().cancelled_owned())
    });
    let main_served = layered.serve_with_incoming_shutdown(routes, connections, last_connection);
    let served = async {
        let ticketing_served = OptionFuture::from(ticketing_served);
        tokio::try_join!(main_served, async { ticketing_served.await.unwrap_or(Ok(())) }).map(drop)
    };
    let mut served = std::pin::pin!(served);
    tokio::select! {
        ended = &mut served => return Ok(ended?),
        () = async { shutdown.cancelled().await; tokio::time::sleep(wait_max).await } => {}
    }
    tracing::warn!("requests that did not end in time are cut off");
    cut_off.cancel();
    match tokio::time::timeout(CUT_OFF_WAIT, served).await {
        Ok(ended) => Ok(ended?),
        Err(_) => Ok(()),
    }
}
