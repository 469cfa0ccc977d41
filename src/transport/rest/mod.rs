//! REST: JSON over HTTP, one file per resource.

mod answer;
mod body;
mod campaigns;
mod docs;
mod event_body;
mod events;
mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod health;
mod metrics;
mod openapi;
mod params;
mod stats;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

pub(super) use failure::Failure;

use super::protocol::Protocol;
use super::serving::Serving;
use crate::domain::OrgId;

/// Every REST path.
pub(super) fn routes(serving: &Arc<Serving>) -> Router {
    Router::new()
        .route("/events", get(events::list).post(events::take))
        .route("/events/{event_id}", get(events::show))
        .route("/stats", get(stats::show))
        .route("/users/top", get(users::top))
        .route("/campaigns/top", get(campaigns::top))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::show))
        .with_state(Arc::clone(serving))
        .merge(docs::routes())
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

/// The organisation a request belongs to.
pub(super) struct Organisation(pub(super) OrgId);

impl FromRequestParts<Arc<Serving>> for Organisation {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, serving: &Arc<Serving>) -> Result<Self, Failure> {
        Ok(Self(serving.organisation(&parts.headers)?))
    }
}
