//! What every request passes first, in one layer: the bound on requests in
//! flight, the net under a panic, and, for browsers, CORS.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{HeaderName, Method, Request, Response, header};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use tonic::body::Body;
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Any, Cors, CorsLayer};

use super::gate::Gate;
use super::protocol::Protocol;
use crate::config::Origins;
use crate::domain::Error;

/// How long a browser may remember what CORS allows.
const CORS_MEMORY: Duration = Duration::from_secs(600);

/// Puts a [`Front`] before a service.
#[derive(Clone)]
pub(super) struct FrontLayer {
    gate: Arc<Gate>,
    cors: CorsLayer,
}

impl FrontLayer {
    /// Lets requests in by this gate, and pages from these origins.
    pub(super) fn new(gate: Arc<Gate>, origins: &Origins) -> Self {
        Self { gate, cors: cors(origins) }
    }
}

impl<S: Clone> Layer<S> for FrontLayer {
    type Service = Front<S>;

    fn layer(&self, inner: S) -> Front<S> {
        let guarded = Guarded { inner, gate: Arc::clone(&self.gate) };
        Front { with_cors: self.cors.layer(guarded.clone()), guarded }
    }
}

/// By default any origin, since there is nothing that a browser would send by
/// itself: no cookies, and tokens only where a page has one. `authorization` must
/// be named, as `*` does not include it.
fn cors(origins: &Origins) -> CorsLayer {
    let allowed = [
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
        "grpc-encoding",
        "grpc-accept-encoding",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "x-request-id",
        "traceparent",
        "tracestate",
    ];
    let exposed = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "x-cache",
        "x-watermark",
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "allow",
        "etag",
        "idempotency-replayed",
        "location",
        "x-summary-cache",
        "www-authenticate",
    ];
    let allowed = allowed.map(HeaderName::from_static).into_iter();
    let origin = match origins {
        Origins::Any => AllowOrigin::from(Any),
        Origins::These(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(allowed.chain([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT]).collect::<Vec<_>>())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(CORS_MEMORY)
}

/// See the module.
#[derive(Clone)]
pub(super) struct Front<S> {
    guarded: Guarded<S>,
    /// For requests of browsers, which name their origin. The others are
    /// spared the headers.
    with_cors: Cors<Guarded<S>>,
}

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future =
        Either<<Guarded<S> as Service<Request<Body>>>::Future, <Cors<Guarded<S>> as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.guarded.poll_ready(context) {
            Poll::Ready(Ok(())) => self.with_cors.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.headers().contains_key(header::ORIGIN) {
            Either::Right(self.with_cors.call(request))
        } else {
            Either::Left(self.guarded.call(request))
        }
    }
}

/// The bound and the net.
#[derive(Clone)]
pub(super) struct Guarded<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let protocol = Protocol::of(request.headers());
        let place =
            if is_probe(request.uri().path()) { Ok(self.gate.enter_over_the_bound()) } else { self.gate.enter() };
        let place = match place {
            Ok(place) => place,
            Err(error) => return std::future::ready(Ok(protocol.refusal(error).map(Body::new))).boxed(),
        };
        // What a panicking request leaves behind is its own: what is shared is
        // behind locks that do not poison, and is changed in single steps.
        let response = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        async move {
            let _place = place;
            match response.await {
                Ok(response) => response,
                Err(panic) => {
                    let message = panic.downcast_ref::<&str>().copied();
                    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
                    tracing::error!(panic = message.unwrap_or("not a text"), "a request panicked");
                    Ok(protocol.refusal(Error::internal()).map(Body::new))
                }
            }
        }
        .boxed()
    }
}

/// Whether a probe asks how the service is.
fn is_probe(path: &str) -> bool {
    path == "/healthz" || path == "/readyz" || path.starts_with("/grpc.health.v1.Health/")
}
