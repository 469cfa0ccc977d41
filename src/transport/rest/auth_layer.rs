//! Registers routes with the access they require, and authenticates their callers.

use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;

use tower::{Layer, Service};

use super::body;
use super::params::Params;
use crate::domain::{Error, OrgId};
use crate::transport::auth::{Caller, Refusal, RequiredAccess, Scope};
use crate::transport::call::{self, SharedBody};
use crate::transport::concurrency::Class;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;

/// A router whose routes all declare the access they require.
pub(super) struct Routes {
    router: Router<Arc<TransportContext>>,
    context: Arc<TransportContext>,
}

impl Routes {
    pub(super) fn new(context: &Arc<TransportContext>) -> Self {
        Self { router: Router::new(), context: Arc::clone(context) }
    }

    /// Adds methods of a path with the same required access.
    pub(super) fn route(self, path: &str, need: RequiredAccess, methods: MethodRouter<Arc<TransportContext>>) -> Self {
        let Self { router, context } = self;
        let note = RouteNote { route: Arc::from(path) };
        let methods = match need {
            RequiredAccess::Nothing => methods.route_layer(from_fn(open)),
            RequiredAccess::Scope(scope) => {
                methods.route_layer(from_fn_with_state((Arc::clone(&context), scope), admit))
            }
        };
        Self { router: router.route(path, methods.layer(note)), context }
    }

    /// Adds methods for probes. They are never refused, and must neither read a body nor wait.
    pub(super) fn probe(self, path: &str, methods: MethodRouter<Arc<TransportContext>>) -> Self {
        let Self { router, context } = self;
        let note = RouteNote { route: Arc::from(path) };
        Self { router: router.route(path, methods.layer(note)), context }
    }

    pub(super) fn finish(self) -> Router {
        self.router.with_state(self.context)
    }
}

/// Records the route of a call.
#[derive(Clone)]
struct RouteNote {
    route: Arc<str>,
}

impl<S> Layer<S> for RouteNote {
    type Service = NotingRoute<S>;

    fn layer(&self, inner: S) -> NotingRoute<S> {
        NotingRoute { inner, route: Arc::clone(&self.route) }
    }
}

#[derive(Clone)]
struct NotingRoute<S> {
    inner: S,
    route: Arc<str>,
}

impl<S: Service<Request>> Service<Request> for NotingRoute<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> S::Future {
        if let Some(call) = call::of(&request) {
            call.note_route(&self.route);
        }
        self.inner.call(request)
    }
}

/// Admits a request that requires no token.
async fn open(request: Request, next: Next) -> Response {
    match call::of(&request).map_or(Ok(()), |call| call.enter(Class::Open, None)) {
        Ok(()) => answered(request, next).await,
        Err(error) => Failure::from(error).into_response(),
    }
}

/// Runs a request that has been let in. What it is answered is dropped when
/// too much waits to be read by then, if it has changed nothing: many may have
/// been let in at a time when there was room.
async fn answered(request: Request, next: Next) -> Response {
    let (call, is_safe) = (call::of(&request).cloned(), request.method().is_safe());
    let response = next.run(request).await;
    let Some(call) = call else { return response };
    let is_shared = response.extensions().get::<SharedBody>().is_some();
    call.note_changes_nothing(is_safe && !is_shared);
    match call.check_answer() {
        Ok(()) => response,
        Err(error) => Failure::from(error).into_response(),
    }
}

/// Admits an authenticated request.
async fn admit(
    State((context, scope)): State<(Arc<TransportContext>, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = context.app.callers.caller(request.headers(), scope).await;
    match caller.and_then(|caller| speaks_for_itself(&request, &caller).map(|()| caller)) {
        Ok(caller) => {
            if let Err(error) = context.admit(call::of(&request), &caller, scope) {
                body::drain(request).await;
                return Failure::from(error).into_response();
            }
            request.extensions_mut().insert(caller);
            answered(request, next).await
        }
        Err(refusal) => {
            body::drain(request).await;
            refused(refusal)
        }
    }
}

/// A request may name its organization, but no other.
fn speaks_for_itself(request: &Request, caller: &Caller) -> Result<(), Refusal> {
    if request.uri().query().is_none() {
        return Ok(());
    }
    Params::read(request.uri()).all("org_id").iter().try_for_each(|org_id| caller.must_be(org_id))
}

pub(super) fn refused(refusal: Refusal) -> Response {
    let mut response = Failure::from(refusal.error()).into_response();
    if let Some(challenge) = refusal.challenge().and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        // A route that asks for nothing has no caller.
        Ok(parts.extensions.get::<Self>().cloned().ok_or_else(Error::internal)?)
    }
}

/// The organization a request belongs to.
pub(super) struct PathOrganization(pub(super) OrgId);

impl<S: Sync> FromRequestParts<S> for PathOrganization {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        Ok(Self(Caller::from_request_parts(parts, state).await?.org_id))
    }
}
