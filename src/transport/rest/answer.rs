//! Answers to queries: JSON, with their freshness in headers.

use axum::Json;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::domain::Timestamp;
use crate::transport::rfc3339;

const X_CACHE: HeaderName = HeaderName::from_static("x-cache");
const X_WATERMARK: HeaderName = HeaderName::from_static("x-watermark");

/// A body, and how fresh it is.
pub(super) fn answer(body: impl Serialize, watermark: Timestamp, cached: bool) -> Response {
    let mut response = Json(body).into_response();
    let headers = response.headers_mut();
    headers.insert(X_CACHE, HeaderValue::from_static(if cached { "HIT" } else { "MISS" }));
    if let Ok(watermark) = HeaderValue::try_from(rfc3339::write_millis(watermark)) {
        headers.insert(X_WATERMARK, watermark);
    }
    response
}
