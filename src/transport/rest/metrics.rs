//! Route `/metrics`, for Prometheus.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};

use crate::domain::Error;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;

/// Metrics of the service
///
/// Requires no token if the setting `metrics_open` is true.
#[utoipa::path(
    get, path = "/metrics", operation_id = "getMetrics", tag = "Service", security(("token" = ["admin"])),
    responses((status = 200, description = "Metrics, in Prometheus's text format.", content_type = "text/plain", body = String)),
)]
pub(super) async fn show(State(context): State<Arc<TransportContext>>) -> Result<Response, Failure> {
    let text = context.app.metrics.text().map_err(|error| {
        tracing::error!(error, "could not write the metrics");
        Error::internal()
    })?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response())
}
