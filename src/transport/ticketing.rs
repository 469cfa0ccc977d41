//! Serves the ticketing catalogue: its calls are logged as all others, and its administrators can use the
//! service's tokens.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tallyhouse_catalogue::http::{self, AdminVerifier, Api, Denial};

use super::auth::{Callers, Refusal, Scope};
use super::call;
use super::concurrency::Class;
use super::error::failure::Failure;
use crate::domain::OrgId;

/// Where the catalogue is on the port that it shares.
pub(super) const PREFIX: &str = "/ticketing";

/// The catalogue's routes below a prefix.
pub(super) fn routes(api: &Arc<Api>, prefix: &'static str) -> Router {
    http::routes(api, prefix).route_layer(from_fn(note_route))
}

/// Notes which route a call takes, and lets it be served among those that need
/// no token of this service.
async fn note_route(request: Request, next: Next) -> Response {
    if let (Some(call), Some(path)) = (call::of(&request), request.extensions().get::<MatchedPath>()) {
        call.note_route(&Arc::from(path.as_str()));
        if let Err(error) = call.enter(Class::Open, None) {
            return Failure::from(error).into_response();
        }
    }
    next.run(request).await
}

/// Takes callers with the scope `admin` for administrators of the catalogue.
pub struct AdminScopeVerifier {
    callers: Callers,
    operator: Option<OrgId>,
}

impl AdminScopeVerifier {
    /// None without authentication: then nobody can be told by a token. Where an
    /// operator is named, only its callers are taken.
    pub fn new(callers: &Callers, operator: Option<OrgId>) -> Option<Self> {
        callers.are_authenticated().then(|| Self { callers: callers.clone(), operator })
    }
}

#[async_trait]
impl AdminVerifier for AdminScopeVerifier {
    async fn verify(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let caller = self.callers.caller(headers, Scope::Admin).await.map_err(|refusal| match refusal {
            Refusal::Missing => Denial::Missing,
            Refusal::NoKeys => Denial::Unavailable,
            _ => Denial::Wrong,
        })?;
        let is_operator = self.operator.as_ref().is_none_or(|operator| *operator == caller.org_id);
        if is_operator { Ok(()) } else { Err(Denial::Wrong) }
    }
}
