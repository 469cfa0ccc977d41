//! The layer around each gRPC service: authentication, grpc-web, answers to other protocols, deadlines,
//! time limits of requests, and details for errors that tonic creates.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::{Request, Response, Version};
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service, ServiceExt};

use super::access::{need, takes_stream};
use super::deadline::{self, DeadlineBody};
use super::methods::Methods;
use super::request_body::{BodyTimeout, RequestBody};
use crate::domain::Error;
use crate::transport::auth::{RequiredAccess, Scope};
use crate::transport::call::{self, Call};
use crate::transport::concurrency::{Class, HealthCheck};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::error::status;
use crate::transport::protocol::Protocol;

/// Longest time of a health check, including its request, and for the request of a watcher to
/// arrive.
const HEALTH_WAIT_MAX: Duration = Duration::from_secs(2);
/// Longest a reflection stream may take for its next question.
const REFLECTION_WAIT_MAX: Duration = Duration::from_secs(10);

/// Wraps one gRPC service: verifies tokens, translates grpc-web, applies deadlines and limits of
/// requests, and adds error details.
#[derive(Clone)]
pub(super) struct AuthLayer<S> {
    inner: GrpcWebService<DetailedErrors<S>>,
    context: Arc<TransportContext>,
    methods: Arc<Methods>,
}

impl<S: Service<Request<Body>, Response = Response<Body>>> AuthLayer<S> {
    /// Wraps a service.
    pub(super) fn new(inner: S, context: &Arc<TransportContext>, methods: &Arc<Methods>) -> Self {
        let body_wait_max = Duration::from_millis(context.app.config.body_wait_ms_max);
        let inner = GrpcWebLayer::new().layer(DetailedErrors { inner, body_wait_max });
        Self { inner, context: Arc::clone(context), methods: Arc::clone(methods) }
    }
}

impl<S> Service<Request<axum::body::Body>> for AuthLayer<S>
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
        let Self { inner, context, methods } = self.clone();
        async move {
            let check = match admit(&context, &methods, &mut request).await {
                Ok(check) => check,
                Err(response) => return Ok(response.map(Body::new)),
            };
            let protocol = Protocol::of(request.headers());
            let Some(check) = check else {
                let call = call::of(&request).cloned();
                let response = inner.oneshot(request).await?;
                // Many may have been let in at a time when there was room.
                return Ok(match call.map_or(Ok(()), |call| call.check_answer()) {
                    Ok(()) => response,
                    Err(error) => protocol.refusal(error).map(Body::new),
                });
            };
            tokio::select! {
                response = inner.oneshot(request) => response,
                error = check.evicted() => Ok(protocol.refusal(error).map(Body::new)),
            }
        }
        .boxed()
    }
}

/// Lets a request through, with its caller; or says what it is answered. A
/// health check has its place.
async fn admit(
    context: &TransportContext,
    methods: &Methods,
    request: &mut Request<axum::body::Body>,
) -> Result<Option<HealthCheck>, Response<axum::body::Body>> {
    let protocol = Protocol::of(request.headers());
    let unspoken = match &protocol {
        Protocol::Rest => Some("this path speaks gRPC: content type application/grpc or application/grpc-web"),
        Protocol::Grpc if request.version() < Version::HTTP_2 => Some("gRPC needs HTTP/2; HTTP/1.1 can speak grpc-web"),
        Protocol::Grpc | Protocol::GrpcWeb(_) => None,
    };
    if let Some(message) = unspoken {
        return Err(Failure::unsupported_media_type(message).into_response());
    }
    let need = need(request.uri().path(), &context.app.config);
    if let (Some(call), Some(_)) = (call::of(request), &need) {
        methods.note(call, request.uri().path());
    }
    let scope = match need {
        Some(RequiredAccess::Nothing) => return probe(request).map_err(|error| protocol.refusal(error)),
        Some(RequiredAccess::Scope(scope)) => scope,
        None => return Err(protocol.status_response(Status::unimplemented("there is no such method"))),
    };
    match context.app.callers.caller(request.headers(), scope).await {
        Ok(caller) => {
            let call = call::of(request);
            context.admit(call, &caller, scope).map_err(|error| protocol.refusal(error))?;
            if let Some(call) = call {
                call.note_changes_nothing(scope == Scope::Read);
            }
            request.extensions_mut().insert(caller);
            Ok(None)
        }
        Err(refusal) => Err(protocol.refusal(refusal.error())),
    }
}

/// Admits a request that requires no token.
fn probe<T>(request: &Request<T>) -> Result<Option<HealthCheck>, Error> {
    let Some(call) = call::of(request) else { return Ok(None) };
    let path = request.uri().path();
    if is_health(path) && !path.ends_with("/Watch") {
        return Ok(Some(call.health_check()));
    }
    call.enter(Class::Probe, None).map(|()| None)
}

fn is_health(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.")
}

/// A service whose own errors have details, whose calls have deadlines, and
/// whose requests must arrive in time. What a grpc-web answer says in its body,
/// where nobody else looks, is noted for the call.
#[derive(Clone)]
struct DetailedErrors<S> {
    inner: S,
    body_wait_max: Duration,
}

impl<S> DetailedErrors<S> {
    /// The time-outs for a request's body.
    fn timeout_rule(&self, path: &str) -> BodyTimeout {
        if is_health(path) {
            BodyTimeout::Whole(HEALTH_WAIT_MAX)
        } else if path.starts_with("/grpc.reflection.") {
            BodyTimeout::EachMessageAndPause(REFLECTION_WAIT_MAX)
        } else if takes_stream(path) {
            BodyTimeout::EachMessage(self.body_wait_max)
        } else {
            BodyTimeout::Whole(self.body_wait_max)
        }
    }

    /// When a call ends at the latest.
    fn deadline(request: &Request<Body>) -> Option<Instant> {
        let path = request.uri().path();
        let ours = (is_health(path) && !path.ends_with("/Watch")).then_some(HEALTH_WAIT_MAX);
        let wait = deadline::timeout(request.headers()).into_iter().chain(ours).min()?;
        Some(Instant::now() + wait)
    }
}

impl<S> Service<Request<Body>> for DetailedErrors<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let deadline = Self::deadline(&request);
        let timeout_rule = self.timeout_rule(request.uri().path());
        let call = call::of(&request);
        let unfinished = call.map(|call| call.unfinished_bytes());
        let call = call.filter(|call| call.is_grpc_web()).cloned();
        let response = self.inner.call(request.map(|body| Body::new(RequestBody::new(body, timeout_rule, unfinished))));
        async move {
            let response = match deadline {
                None => explained(response.await?),
                Some(deadline) => match timeout_at(deadline, response).await {
                    Ok(response) => explained(response?).map(|body| Body::new(DeadlineBody::new(body, deadline))),
                    Err(_) => deadline::exceeded().into_http(),
                },
            };
            let Some(call) = call else { return Ok(response) };
            call.note_grpc_status(response.headers());
            Ok(response.map(|body| Body::new(body.map_frame(move |frame| noted(&call, frame)))))
        }
        .boxed()
    }
}

fn noted(call: &Call, frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_ref() {
        call.note_grpc_status(trailers);
    }
    frame
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

/// What a status of tonic's own about a message means. Ours have details.
pub(super) fn unreadable(status: &Status) -> Option<Error> {
    if !status.details().is_empty() {
        return None;
    }
    match status.code() {
        // Over the size, as it came or unpacked.
        Code::OutOfRange | Code::ResourceExhausted => Some(Error::too_large(status.message())),
        Code::Internal => Some(Error::invalid_field("message", status.message())),
        _ => None,
    }
}
