//! What stands around each gRPC service: grpc-web, an answer to those who do
//! not speak gRPC, and details for the errors that tonic makes itself.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use axum::http::{Request, Response, Version};
use axum::response::IntoResponse;
use futures_util::future::Either;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::util::MapResponse;
use tower::{Layer, Service, ServiceExt};

use super::status;
use crate::domain::Error;
use crate::transport::protocol::Protocol;
use crate::transport::rest::Failure;

type Explained<S> = MapResponse<S, fn(Response<Body>) -> Response<Body>>;

/// See the module.
#[derive(Clone)]
pub(in crate::transport) struct GrpcOnly<S> {
    inner: GrpcWebService<Explained<S>>,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> GrpcOnly<S> {
    /// Wraps a service.
    pub(super) fn new(inner: S) -> Self {
        Self { inner: GrpcWebLayer::new().layer(inner.map_response(explained as fn(_) -> _)) }
    }
}

impl<S> Service<Request<axum::body::Body>> for GrpcOnly<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        <GrpcWebService<Explained<S>> as Service<Request<axum::body::Body>>>::Future,
        Ready<Result<Response<Body>, Infallible>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<axum::body::Body>>::poll_ready(&mut self.inner, context)
    }

    fn call(&mut self, request: Request<axum::body::Body>) -> Self::Future {
        let message = match Protocol::of(request.headers()) {
            Protocol::Rest => "this path speaks gRPC: content type application/grpc or application/grpc-web",
            Protocol::Grpc if request.version() < Version::HTTP_2 => "gRPC needs HTTP/2; HTTP/1.1 can speak grpc-web",
            Protocol::Grpc | Protocol::GrpcWeb(_) => return Either::Left(self.inner.call(request)),
        };
        let response = Failure::unsupported_media_type(message).into_response();
        Either::Right(ready(Ok(response.map(Body::new))))
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
