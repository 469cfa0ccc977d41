//! Serves everything on one port, and shuts it down in order. The ticketing catalogue may have a second
//! port.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use futures_util::future::OptionFuture;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Layer as _, ServiceExt as _};

use super::application::Application;
use super::call::CallLayer;
use super::concurrency::Concurrency;
use super::connect::ConnectLayer;
use super::connections::{Connection, ConnectionIo, ConnectionPermit, Connections, Listener, Tls};
use super::context::TransportContext;
use super::edge::{Edge, EdgeLayer};
use super::grpc::health::Health;
use super::{grpc, rest, ticketing};
use crate::health::{Reason, ReasonCode};

/// How often an idle HTTP/2 connection is asked whether it is still there, and
/// how long it may take to say so.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_WAIT: Duration = Duration::from_secs(20);
/// Longest the head of an HTTP/1.1 request may take.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// Requests of one HTTP/2 connection at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 256;
/// Bytes that may be on their way to one request, and to one connection, before
/// they are read. A stream that is not read must leave room for its neighbours.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Bytes of one answer that hyper takes before they can be sent.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// How long cut-off connections are given to notice.
const CUT_OFF_WAIT: Duration = Duration::from_millis(500);

/// Why serving could not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The service's own description is broken.
    #[error("reflection cannot be set up: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The service's own description is broken.
    #[error("the Connect protocol cannot be set up: {0}")]
    Connect(#[from] prost_reflect::DescriptorError),
}

/// Serves gRPC, grpc-web and REST, and the ticketing catalogue alone on a
/// listener of its own if there is one, until `shutdown`; over TLS where there
/// is a certificate. Then health says so, streams answer what they have read and
/// end, requests are finished, and it returns; at the latest after
/// [`crate::config::Config::shutdown_wait_ms_max`], when what is left is cut
/// off.
///
/// # Errors
/// When the service's own description is broken.
pub async fn serve(
    app: Arc<Application>,
    listener: TcpListener,
    ticketing_listener: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let wait_max = app.config.shutdown_wait();
    let concurrency = Concurrency::new(&app.config);
    let connections = Connections::new(&app.config, &concurrency);
    register_health(&app, &connections);
    app.metrics.observe_calls(move || concurrency.in_flight());
    let context = TransportContext::new(app);
    let (mut health, health_service) = Health::new().await;
    let grpc_routes = grpc::routes(&context, health_service)?.layer(ConnectLayer::new(&context)?);
    let mut router = grpc_routes.merge(rest::routes(&context));
    if let Some(api) = &context.app.ticketing {
        router = router.merge(ticketing::routes(api, ticketing::PREFIX));
    }
    let config = &context.app.config;
    let edge = EdgeLayer::new(config, config.has_authentication());
    let server = Server::new(&context, router, &edge, tls.clone());
    // Whoever may change something there has a token of its own.
    let ticketing_server = context
        .app
        .ticketing
        .as_ref()
        .map(|api| Server::new(&context, ticketing::routes(api, ""), &EdgeLayer::new(config, true), tls));

    let reasons = Arc::clone(&context.app.health);
    let last_connection = async {
        // Dropped before the end is said: nothing must say SERVING after it.
        let _ = shutdown.run_until_cancelled(health.follow(&reasons)).await;
        context.drain.begin();
        health.stopping().await;
        // Until the streams have ended, probes and those who come back with
        // a last request still find somebody.
        let _ = tokio::time::timeout(wait_max / 2, context.drain.streams_ended()).await;
        health.stopped().await;
    };
    let ticketing_served = ticketing_listener.zip(ticketing_server).map(|(listener, server)| {
        server.run(Listener::new(listener, Arc::clone(&connections)), shutdown.clone().cancelled_owned())
    });
    let served = server.run(Listener::new(listener, Arc::clone(&connections)), last_connection);
    let mut served = pin!(async { tokio::join!(served, OptionFuture::from(ticketing_served)) });
    let over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(wait_max).await;
    };
    tokio::select! {
        _ = &mut served => return Ok(()),
        () = connections.look_after() => {}
        () = over => {}
    }
    tracing::warn!("closed requests that did not end in time");
    connections.cut_off_all();
    let _ = tokio::time::timeout(CUT_OFF_WAIT, served).await;
    Ok(())
}

fn register_health(app: &Application, connections: &Arc<Connections>) {
    let connections = Arc::clone(connections);
    app.health.register(move || {
        let (open, max) = (connections.open(), connections.max());
        let message = format!("{open} connections are open, as many as there may be (connections_max, open files)");
        (open >= max).then(|| Reason::new(ReasonCode::ConnectionsFull, message))
    });
}

/// What serves connections.
struct Server {
    routes: Edge<Routes>,
    calls: CallLayer,
    http: Builder<TokioExecutor>,
    tls: Option<Arc<Tls>>,
    /// After which time a connection is asked to close; zero: never.
    age_max: Duration,
    /// Asks all connections to close when they have answered.
    ends: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    fn new(context: &TransportContext, router: Router, edge: &EdgeLayer, tls: Option<Arc<Tls>>) -> Self {
        let config = &context.app.config;
        let routes = Routes::from(rest::with_fallbacks(router)).prepare();
        Self {
            routes: edge.layer(routes),
            calls: CallLayer::new(config, &context.app.metrics),
            http: http(),
            tls,
            age_max: Duration::from_millis(config.connection_age_ms_max),
            ends: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves until after the last connection, and all that were there to
    /// their ends.
    async fn run(self, listener: Listener, last_connection: impl Future<Output = ()>) {
        let server = Arc::new(self);
        let mut last_connection = pin!(last_connection);
        loop {
            let (io, place) = tokio::select! {
                () = &mut last_connection => break,
                accepted = listener.accept() => accepted,
            };
            server.tasks.spawn(Arc::clone(&server).serve(io, place));
        }
        drop(listener);
        server.ends.cancel();
        server.tasks.close();
        server.tasks.wait().await;
    }

    /// Serves one connection.
    async fn serve(self: Arc<Self>, io: ConnectionIo, permit: ConnectionPermit) {
        let connection = Arc::clone(permit.connection());
        let served = async {
            match &self.tls {
                None => self.speak(io, &connection).await,
                Some(tls) => {
                    if let Some(io) = tls.accept(io).await {
                        self.speak(io, &connection).await;
                    }
                }
            }
        };
        tokio::select! {
            () = served => {}
            () = connection.is_cut_off() => {}
        }
    }

    /// Speaks HTTP on a connection, whichever version the client begins.
    async fn speak(&self, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, connection: &Arc<Connection>) {
        let service = self.calls.layer(self.routes.clone(), Arc::clone(connection));
        let service = service.map_request(|request: Request<Incoming>| request.map(Body::new));
        let mut served = pin!(self.http.serve_connection(TokioIo::new(io), TowerToHyperService::new(service)));
        let mut is_old = pin!(tokio::time::sleep(self.age_max));
        let mut is_ending = false;
        loop {
            tokio::select! {
                ended = &mut served => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "a connection failed");
                    }
                    return;
                }
                () = &mut is_old, if !is_ending && !self.age_max.is_zero() => {}
                () = self.ends.cancelled(), if !is_ending => {}
            }
            is_ending = true;
            served.as_mut().graceful_shutdown();
        }
    }
}

fn http() -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_WAIT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    http
}
