//! What stands around each gRPC service: who may call, grpc-web, an answer to
//! those who do not speak gRPC, and details for the errors that tonic makes
//! itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{Request, Response, Version};
use axum::response::IntoResponse;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::util::MapResponse;
use tower::{Layer, Service, ServiceExt};

use super::needs::need;
use super::status;
use crate::domain::Error;
use crate::transport::auth::Need;
use crate::transport::protocol::Protocol;
use crate::transport::rest::Failure;
use crate::transport::serving::Serving;

type Explained<S> = MapResponse<S, fn(Response<Body>) -> Response<Body>>;

/// See the module.
#[derive(Clone)]
pub(super) struct Guard<S> {
    inner: GrpcWebService<Explained<S>>,
    serving: Arc<Serving>,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> Guard<S> {
    /// Wraps a service.
    pub(super) fn new(inner: S, serving: &Arc<Serving>) -> Self {
        let inner = GrpcWebLayer::new().layer(inner.map_response(explained as fn(_) -> _));
        Self { inner, serving: Arc::clone(serving) }
    }
}

impl<S> Service<Request<axum::body::Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Each call waits for the service itself, once it is let through.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<axum::body::Body>) -> Self::Future {
        let Self { inner, serving } = self.clone();
        async move {
            match admit(&serving, &mut request).await {
                Ok(()) => inner.oneshot(request).await,
                Err(response) => Ok(response.map(Body::new)),
            }
        }
        .boxed()
    }
}

/// Lets a request through, with its caller; or says what it is answered.
async fn admit(serving: &Serving, request: &mut Request<axum::body::Body>) -> Result<(), Response<axum::body::Body>> {
    let protocol = Protocol::of(request.headers());
    let unspoken = match &protocol {
        Protocol::Rest => Some("this path speaks gRPC: content type application/grpc or application/grpc-web"),
        Protocol::Grpc if request.version() < Version::HTTP_2 => Some("gRPC needs HTTP/2; HTTP/1.1 can speak grpc-web"),
        Protocol::Grpc | Protocol::GrpcWeb(_) => None,
    };
    if let Some(message) = unspoken {
        return Err(Failure::unsupported_media_type(message).into_response());
    }
    let scope = match need(request.uri().path(), &serving.app.config) {
        Some(Need::Nothing) => return Ok(()),
        Some(Need::Scope(scope)) => scope,
        None => return Err(protocol.status_response(Status::unimplemented("there is no such method"))),
    };
    match serving.app.callers.caller(request.headers(), scope).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(())
        }
        Err(refusal) => Err(protocol.refusal(refusal.error())),
    }
}

/// tonic refuses what it cannot read before our code sees it, with codes that
/// would have callers try again. All such refusals are the caller's fault, and
/// are told apart from ours by having no details.
fn explained(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    if !headers.contains_key("grpc-status") || headers.contains_key("grpc-status-details-bin") {
        return response;
    }
    match Status::from_header_map(headers).and_then(|status| unreadable(&status)) {
        Some(error) => status::of(error).into_http(),
        None => response,
    }
}

/// What a status of tonic's own about a message means.
pub(super) fn unreadable(status: &Status) -> Option<Error> {
    match status.code() {
        // Over the size, as it came or unpacked.
        Code::OutOfRange | Code::ResourceExhausted => Some(Error::too_large(status.message())),
        Code::Internal => Some(Error::invalid_field("message", status.message())),
        _ => None,
    }
}
