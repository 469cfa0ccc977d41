//! The customer-analytics interface: everything under `/api/v1`.

mod batch;
pub(super) mod events;

use axum::routing::post;

use super::admission::Routes;
use crate::transport::auth::{Need, Scope};

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    routes.route("/api/v1/events", Need::Scope(Scope::Ingest), post(events::take))
}
