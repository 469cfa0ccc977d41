//! The layers that every request passes before routing: browser rules, CORS, and the answer to a panic.

mod browsers;
mod cors;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{Request, Response, header};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either};
use tonic::body::Body;
use tower::{Layer, Service};
use tower_http::cors::{Cors, CorsLayer};

use self::browsers::BrowserRules;
use super::protocol::Protocol;
use crate::config::Config;
use crate::domain::Error;

/// Puts an [`Edge`] before a service.
#[derive(Clone)]
pub(super) struct EdgeLayer {
    cors: CorsLayer,
    browsers: Arc<BrowserRules>,
}

impl EdgeLayer {
    /// By the configured origins and hosts, for services that require tokens or
    /// not.
    pub(super) fn new(config: &Config, has_authentication: bool) -> Self {
        let browsers = Arc::new(BrowserRules::new(config, has_authentication));
        Self { cors: cors::layer(&config.cors_origins), browsers }
    }
}

impl<S: Clone> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        let inner = CatchPanic { inner };
        Edge { with_cors: self.cors.layer(inner.clone()), inner, browsers: Arc::clone(&self.browsers) }
    }
}

/// The outermost layer of the port: browser rules, CORS, and an answer with status 500 if a handler
/// panics.
#[derive(Clone)]
pub(super) struct Edge<S> {
    inner: CatchPanic<S>,
    /// For requests of browsers, which name their origin. The others are
    /// spared the headers.
    with_cors: Cors<CatchPanic<S>>,
    browsers: Arc<BrowserRules>,
}

type Served = Result<Response<Body>, Infallible>;
type WithCors<S> = <Cors<CatchPanic<S>> as Service<Request<Body>>>::Future;

impl<S> Service<Request<Body>> for Edge<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Served>, Either<BoxFuture<'static, Served>, WithCors<S>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.inner.poll_ready(context) {
            Poll::Ready(Ok(())) => self.with_cors.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Err(error) = self.browsers.check(&request) {
            let refusal = Protocol::of(request.headers()).refusal(error);
            return Either::Left(ready(Ok(refusal.map(Body::new))));
        }
        Either::Right(if request.headers().contains_key(header::ORIGIN) {
            Either::Right(self.with_cors.call(request))
        } else {
            Either::Left(self.inner.call(request))
        })
    }
}

/// Answers a request whose service panics.
#[derive(Clone)]
pub(super) struct CatchPanic<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for CatchPanic<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Served>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let protocol = Protocol::of(request.headers());
        // What a panicking request leaves behind is its own: what is shared is
        // behind locks that do not poison, and is changed in single steps.
        let response = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        async move {
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
