//! The HTTP interface of the catalogue: handlers that parse a request, call the [`Catalogue`], and write
//! the answer. They decide nothing.

mod admin;
mod admin_auth;
mod body;
mod docs;
mod entity_tag;
mod failure;
mod json;
mod notifications;
mod openapi;
mod public;
mod summary;
#[cfg(test)]
mod tests;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};

pub use admin_auth::{AdminTokens, AdminVerifier, Denial};

use crate::catalogue::Catalogue;
use crate::domain::ShowId;
use crate::summary::Summaries;
use failure::Failure;

/// Counts reads of the public.
#[async_trait]
pub trait ReadCounter: Send + Sync + 'static {
    /// A show was read once.
    async fn count_read(&self, id: ShowId);
}

/// The limits of requests.
#[derive(Clone, Copy, Debug)]
pub struct ApiSettings {
    /// Largest body, in bytes.
    pub body_bytes_max: usize,
    /// Longest time for a body to arrive.
    pub body_wait_max: Duration,
    /// The pause between two chunks of a summary.
    pub summary_chunk_pause: Duration,
}

/// The state that requests share.
pub struct Api {
    /// Shows.
    pub catalogue: Catalogue,
    /// Their summaries.
    pub summaries: Summaries,
    /// The tokens of administrators.
    pub tokens: AdminTokens,
    /// Accepts other tokens of administrators, if the service has any.
    pub verifier: Option<Arc<dyn AdminVerifier>>,
    /// Counts reads, if they are counted.
    pub reads: Option<Arc<dyn ReadCounter>>,
    /// The bounds.
    pub settings: ApiSettings,
}

/// The API at one address.
#[derive(Clone)]
struct MountedApi {
    api: Arc<Api>,
    prefix: &'static str,
}

/// Every route, below a prefix: empty, or with a slash before and none behind.
/// What no route takes is for the caller to answer.
pub fn routes(api: &Arc<Api>, prefix: &'static str) -> Router {
    let mounted = MountedApi { api: Arc::clone(api), prefix };
    let admin =
        |methods: MethodRouter<MountedApi>| methods.route_layer(from_fn_with_state(mounted.clone(), admin_auth::admit));
    let at = |path: &str| format!("{prefix}{path}");
    Router::new()
        .route(&at("/events"), admin(get(admin::list).post(admin::create)))
        .route(&at("/events/{id}"), admin(get(admin::show).patch(admin::change)))
        .route(&at("/notifications"), admin(get(notifications::list)))
        .route(&at("/notifications/{id}/retry"), admin(post(notifications::retry)))
        .route(&at("/public/events"), get(public::list))
        .route(&at("/public/events/{id}"), get(public::show))
        .route(&at("/public/events/{id}/summary"), get(summary::show))
        .route(&at("/openapi.json"), get(docs::description))
        .route(&at("/docs"), get(docs::to_pages))
        .route(&at("/docs/"), get(docs::first_page))
        .route(&at("/docs/{*file}"), get(docs::page))
        .with_state(mounted)
}

/// Every route at the root of an address of its own, with answers to everything
/// else.
pub fn standalone(api: &Arc<Api>) -> Router {
    routes(api, "").fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

async fn no_such_path(request: Request) -> Failure {
    body::drain(request).await;
    Failure::no_such_path()
}

async fn no_such_method(request: Request) -> Failure {
    body::drain(request).await;
    Failure::method_not_allowed()
}
