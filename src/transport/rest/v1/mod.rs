//! The customer-analytics interface: everything under `/api/v1`.

mod batch;
pub(super) mod event_types;
pub(super) mod events;

use axum::routing::{get, post, put};

use super::admission::Routes;
use crate::transport::auth::{Need, Scope};

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let (ingest, read, admin) = (Need::Scope(Scope::Ingest), Need::Scope(Scope::Read), Need::Scope(Scope::Admin));
    routes
        .route("/api/v1/events", ingest, post(events::take))
        .route("/api/v1/event-types", read, get(event_types::list))
        .route("/api/v1/event-types/{type}", read, get(event_types::show))
        .route("/api/v1/event-types/{type}", admin, put(event_types::put))
}
