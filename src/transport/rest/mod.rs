//! REST: JSON over HTTP, one file per resource.

mod answer;
mod auth_layer;
pub(super) mod body;
mod campaigns;
mod compat;
mod compression;
mod docs;
mod event_body;
mod events;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod health;
mod metrics;
mod openapi;
mod params;
mod pipeline;
mod stats;
mod users;
mod v1;
mod web;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use super::auth::{RequiredAccess, Scope};
use super::context::TransportContext;
use super::error::failure::Failure;
use super::protocol::Protocol;
use auth_layer::Routes;

/// Every REST path, with what it asks of its callers.
pub(super) fn routes(context: &Arc<TransportContext>) -> Router {
    let read = RequiredAccess::Scope(Scope::Read);
    let metrics =
        if context.app.config.metrics_open { RequiredAccess::Nothing } else { RequiredAccess::Scope(Scope::Admin) };
    let routes = Routes::new(context)
        .route("/events", read, get(events::list))
        .route("/events", RequiredAccess::Scope(Scope::Ingest), post(events::take))
        .route("/events/{event_id}", read, get(events::show))
        .route("/stats", read, get(stats::show))
        .route("/users/top", read, get(users::top))
        .route("/campaigns/top", read, get(campaigns::top))
        .probe("/healthz", get(health::alive))
        .probe("/readyz", get(health::ready))
        .route("/metrics", metrics, get(metrics::show));
    let routes = if context.app.event_pipeline.is_some() { pipeline::add(routes) } else { routes };
    let routes = docs::add(compat::add(v1::add(routes)), &context.app.config);
    compression::compressing(web::add(routes, context.app.website.as_ref()).finish())
}

/// Answers what no path and no method of the router takes.
pub(super) fn with_fallbacks(router: Router) -> Router {
    router.reset_fallback().fallback(no_such_path).method_not_allowed_fallback(no_such_method)
}

async fn no_such_path(request: Request) -> Response {
    match Protocol::of(request.headers()) {
        Protocol::Rest => {
            body::drain(request).await;
            Failure::no_such_path().into_response()
        }
        grpc => grpc.status_response(tonic::Status::unimplemented("there is no such method")),
    }
}

async fn no_such_method(request: Request) -> Failure {
    body::drain(request).await;
    Failure::method_not_allowed()
}
