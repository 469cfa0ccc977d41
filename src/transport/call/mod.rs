//! Every call from its first byte to its last: its id, its log line, its duration, its span. This layer is
//! outermost, so that every answer has an id and every call a log line.
//!
//! It decides nothing, and its cost must be small compared with the smallest call: a few small
//! allocations, and a span only if the call is sampled.
//!
//! A call also holds its permit (see [`super::concurrency`]) until its answer has been written.

mod body;
mod line;
mod request_id;
mod unwritten;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry::trace::{Status, TraceContextExt as _};
use opentelemetry::{KeyValue, StringValue};
use parking_lot::Mutex;
use tonic::Code;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use self::body::WatchedBody;
use self::line::{CallLog, code_name};
pub(super) use self::request_id::X_REQUEST_ID;
pub(super) use self::unwritten::HeldBytes;
use super::concurrency::{Class, HealthCheck, LimitReached, OrgUse, Permit, UnfinishedBytes};
use super::connections::Connection;
use super::protocol::Protocol;
use crate::config::Config;
use crate::domain::{Error, OrgId};
use crate::telemetry::{HttpCall, Metrics};
use crate::trace;

/// The `retry_after` while the caller has unread answers.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// No status has been seen.
const NO_STATUS: i32 = -1;

/// The record of a call. Layers and handlers add to it.
pub(super) struct Call {
    method: Method,
    uri: Uri,
    is_grpc: bool,
    is_grpc_web: bool,
    begun: Instant,
    route: OnceLock<Arc<str>>,
    organization: OnceLock<OrgId>,
    grpc_status: AtomicI32,
    connection: Arc<Connection>,
    permit: Mutex<Option<Permit>>,
    /// Whether the call changes nothing, so that its answer can be dropped.
    changes_nothing: AtomicBool,
}

/// Marks a response whose body is shared by all callers and uses no further memory.
#[derive(Clone, Copy)]
pub(super) struct SharedBody;

/// The end of a call.
struct Ended {
    /// The HTTP status; none if the caller disconnected before.
    status: Option<u16>,
    /// The gRPC status, of a gRPC call.
    grpc_status: Option<Code>,
    /// The caller disconnected before the end, or was disconnected.
    is_broken_off: bool,
    took: Duration,
}

impl Ended {
    /// What went wrong, by the semantic conventions: the status, if it is one of
    /// this service's own faults (of the caller's, none is an error of the
    /// server), or that it broke off.
    fn error(&self) -> Option<StringValue> {
        if self.is_broken_off {
            return Some("cancelled".into());
        }
        let is_ours = |code: &Code| {
            matches!(
                code,
                Code::Unknown
                    | Code::DeadlineExceeded
                    | Code::Unimplemented
                    | Code::Internal
                    | Code::Unavailable
                    | Code::DataLoss
            )
        };
        match self.grpc_status {
            Some(code) => Some(code).filter(is_ours).map(|code| code_name(code).into()),
            None => self.status.filter(|status| *status >= 500).map(|status| status.to_string().into()),
        }
    }

    fn has_failed(&self) -> bool {
        self.is_broken_off
            || self.status.is_none_or(|status| status >= 400)
            || self.grpc_status.is_some_and(|code| code != Code::Ok)
    }
}

impl Call {
    fn begin(request: &Request<Body>, connection: &Arc<Connection>) -> Arc<Self> {
        connection.all().begin_call(connection);
        let protocol = Protocol::of(request.headers());
        Arc::new(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            is_grpc: protocol != Protocol::Rest,
            is_grpc_web: matches!(protocol, Protocol::GrpcWeb(_)),
            begun: Instant::now(),
            route: OnceLock::new(),
            organization: OnceLock::new(),
            grpc_status: AtomicI32::new(NO_STATUS),
            connection: Arc::clone(connection),
            permit: Mutex::new(None),
            changes_nothing: AtomicBool::new(false),
        })
    }

    /// Lets the call be served in this class, or go on in it, on behalf of
    /// this organization if it is known.
    ///
    /// # Errors
    /// `Exhausted` when there are as many calls as there may be, or the caller
    /// has not read enough of the answers that it has had.
    pub(super) fn enter(&self, class: Class, org: Option<&Arc<OrgUse>>) -> Result<(), Error> {
        let concurrency = self.connection.concurrency();
        let permit = concurrency.enter(class, self.connection.permits(), org).inspect_err(|reached| {
            if *reached == LimitReached::Service {
                self.connection.all().press();
            }
        })?;
        self.check_room(org)?;
        if org.is_some() {
            self.connection.note_known();
        }
        *self.permit.lock() = Some(permit);
        Ok(())
    }

    /// Counts bytes of its answer that wait to be written.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> HeldBytes {
        HeldBytes::new(self, bytes)
    }

    /// A place among the health checks.
    pub(super) fn health_check(&self) -> HealthCheck {
        self.connection.concurrency().health_checks().enter()
    }

    /// Notes whether its answer may be dropped without harm.
    pub(super) fn note_changes_nothing(&self, changes_nothing: bool) {
        self.changes_nothing.store(changes_nothing, Ordering::Relaxed);
    }

    /// Whether there is still room for its answer, which may be dropped
    /// otherwise.
    ///
    /// # Errors
    /// `Exhausted`.
    pub(super) fn check_answer(&self) -> Result<(), Error> {
        if !self.changes_nothing.load(Ordering::Relaxed) || self.is_stream() {
            return Ok(());
        }
        self.check_room(self.org().as_ref())
    }

    fn check_room(&self, org: Option<&Arc<OrgUse>>) -> Result<(), Error> {
        let is_read = org.is_none_or(|org| self.connection.concurrency().has_room_for_answers(org));
        if is_read && self.connection.all().has_room_for_answers(&self.connection) {
            return Ok(());
        }
        Err(Error::exhausted("too many bytes of answers wait to be read", RETRY_AFTER))
    }

    /// Counts the bytes of the request until it is whole.
    pub(super) fn unfinished_bytes(&self) -> UnfinishedBytes {
        UnfinishedBytes::new(Arc::clone(self.connection.concurrency()), self.org())
    }

    /// The organization whose call it is, once it is known.
    fn org(&self) -> Option<Arc<OrgUse>> {
        self.permit.lock().as_ref().and_then(|permit| permit.org().cloned())
    }

    /// Whether it goes on, with one answer after the other.
    fn is_stream(&self) -> bool {
        self.permit.lock().as_ref().is_some_and(|permit| permit.class() == Class::Stream)
    }

    /// Which route it takes, or which method it calls.
    pub(super) fn note_route(&self, route: &Arc<str>) {
        let _ = self.route.set(Arc::clone(route)); // A call has one.
    }

    /// Whose it is.
    pub(super) fn note_organization(&self, org_id: &OrgId) {
        let _ = self.organization.set(org_id.clone());
    }

    /// Its gRPC status, if these are the headers or trailers that say it.
    pub(super) fn note_grpc_status(&self, headers: &HeaderMap) {
        if let Some(status) = headers.get("grpc-status") {
            let code = Code::from_bytes(status.as_bytes());
            self.grpc_status.store(code as i32, Ordering::Relaxed);
        }
    }

    /// Whether its status is written into its body, where it must be noted
    /// before.
    pub(super) const fn is_grpc_web(&self) -> bool {
        self.is_grpc_web
    }

    fn route(&self) -> Option<&str> {
        self.route.get().map(|route| &**route)
    }

    fn ended(&self, status: Option<u16>, is_whole: bool) -> Ended {
        let code = self.grpc_status.load(Ordering::Relaxed);
        let grpc_status = match code {
            // Gone before the end, or an answer that is not gRPC's.
            NO_STATUS if !is_whole => Some(Code::Cancelled),
            NO_STATUS => Some(Code::Unknown),
            code => Some(Code::from_i32(code)),
        };
        Ended {
            status,
            grpc_status: grpc_status.filter(|_| self.is_grpc),
            is_broken_off: !is_whole && code == NO_STATUS,
            took: self.begun.elapsed(),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.connection.all().end_call(&self.connection);
    }
}

/// A call's record, where there is one: of each that came in by the port.
pub(super) fn of<T>(request: &Request<T>) -> Option<&Arc<Call>> {
    request.extensions().get::<Arc<Call>>()
}

/// The same for a request that tonic has read.
pub(super) fn of_rpc<T>(request: &tonic::Request<T>) -> Option<&Arc<Call>> {
    request.extensions().get::<Arc<Call>>()
}

/// Puts [`Calls`] before a service.
#[derive(Clone)]
pub(super) struct CallLayer(Arc<Watch>);

/// State that all calls share.
struct Watch {
    metrics: Arc<Metrics>,
    lines: CallLog,
    /// `http`, or `https` where the service has a certificate.
    scheme: &'static str,
}

impl CallLayer {
    pub(super) fn new(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let scheme = if config.tls_certificate_file.is_empty() { "http" } else { "https" };
        Self(Arc::new(Watch { metrics: Arc::clone(metrics), lines: CallLog::new(config), scheme }))
    }

    /// A service for the calls of one connection.
    pub(super) fn layer<S>(&self, inner: S, connection: Arc<Connection>) -> Calls<S> {
        Calls { inner, watch: Arc::clone(&self.0), connection }
    }
}

/// The layer that gives every call an id, a log line, a duration and, if sampled, a span. It adds
/// the header `X-Request-Id` to answers and decides nothing.
#[derive(Clone)]
pub(super) struct Calls<S> {
    inner: S,
    watch: Arc<Watch>,
    connection: Arc<Connection>,
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<WatchedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<WatchedBody>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let id = request_id::of(request.headers());
        let call = Call::begin(&request, &self.connection);
        let trace = trace::call(request.headers());
        request.extensions_mut().insert(Arc::clone(&call));
        let span = span(&id, trace.as_ref());
        let mut ending = Ending { call, watch: Arc::clone(&self.watch), span, trace, status: None, is_whole: false };
        let responding = ending.within(|| self.inner.call(request));
        async move {
            // The span of the log lines is the innermost: tasks that are spawned take it along.
            let (span, trace) = (ending.span.clone(), ending.trace.clone().unwrap_or_else(Span::none));
            let response = responding.instrument(span).instrument(trace).await;
            let mut response = match response {
                Ok(response) => response,
                Err(never) => match never {},
            };
            response.headers_mut().insert(X_REQUEST_ID, id);
            ending.status = Some(response.status().as_u16());
            ending.call.note_grpc_status(response.headers());
            let is_shared = response.extensions().get::<SharedBody>().is_some();
            Ok(response.map(|body| WatchedBody::new(body, ending, is_shared)))
        }
        .boxed()
    }
}

/// What every log line of a call says: its id, and the trace that it is in.
fn span(id: &HeaderValue, trace: Option<&Span>) -> Span {
    let request_id = id.to_str().unwrap_or_default();
    match trace {
        None => tracing::info_span!("request", request_id),
        Some(trace) => {
            let trace_id = trace.context().span().span_context().trace_id();
            tracing::info_span!("request", request_id, %trace_id)
        }
    }
}

/// Reports a call's end when it is dropped: with its answer, or without one if its caller has
/// disconnected.
struct Ending {
    call: Arc<Call>,
    watch: Arc<Watch>,
    /// The span of its log lines.
    span: Span,
    /// The span that is exported, if it is sampled.
    trace: Option<Span>,
    status: Option<u16>,
    is_whole: bool,
}

impl Ending {
    const fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Does something on behalf of the call.
    fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        match &self.trace {
            None => self.span.in_scope(act),
            Some(trace) => trace.in_scope(|| self.span.in_scope(act)),
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let (call, ended) = (&self.call, self.call.ended(self.status, self.is_whole));
        let metrics = self.watch.metrics.calls();
        let (route, scheme, error) = (call.route.get(), self.watch.scheme, ended.error());
        match ended.grpc_status {
            Some(code) => metrics.rpc(route, code_name(code), error, ended.took),
            None => {
                // What was not answered is counted as nginx does, as 499.
                let status = ended.status.unwrap_or(499);
                metrics.http(&HttpCall { method: call.method.as_str(), scheme, route, status, error }, ended.took);
            }
        }
        if let Some(trace) = &self.trace {
            describe(trace, call, &ended, scheme);
        }
        self.span.in_scope(|| self.watch.lines.write(call, &ended));
    }
}

/// Says in a call's span what it was, in the words of OpenTelemetry's semantic
/// conventions, and ends it. Its name is known only now, and `tracing` has no
/// way to rename a span.
fn describe(trace: &Span, call: &Call, ended: &Ended, scheme: &'static str) {
    let context = trace.context();
    let span = context.span();
    let method = crate::telemetry::known_method(call.method.as_str());
    let route = call.route.get();
    if let Some(code) = ended.grpc_status {
        let method = route.map_or("_OTHER", |route| &**route);
        span.update_name(method.to_owned());
        span.set_attributes([
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.response.status_code", code_name(code)),
        ]);
    } else {
        span.update_name(route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")));
        // Not the path: it has ids of users and events.
        span.set_attributes([KeyValue::new("http.request.method", method), KeyValue::new("url.scheme", scheme)]);
        if let Some(route) = route {
            span.set_attribute(KeyValue::new("http.route", Arc::clone(route)));
        }
        if let Some(status) = ended.status {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        }
    }
    let error = ended.error();
    if let Some(org_id) = call.organization.get() {
        span.set_attribute(KeyValue::new("tallyhouse.organization", org_id.as_str().to_owned()));
    }
    if let Some(error) = error {
        span.set_attribute(KeyValue::new("error.type", error.clone()));
        span.set_status(Status::error(error.to_string()));
    }
    span.end();
}
