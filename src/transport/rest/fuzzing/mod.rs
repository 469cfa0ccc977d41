//! Fuzz targets for input over REST.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod body;
pub(crate) mod query;

use axum::response::IntoResponse;
use futures_util::FutureExt as _;
use serde_json::Value;

use crate::domain::Error;
use crate::transport::error::failure::Failure;

/// Asserts that an error about the request has the contract's body, and names
/// these fields only.
fn check_failure(error: Error, fields: &[&str]) {
    let response = Failure::from(error).into_response();
    assert_eq!(response.status(), 422);
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).now_or_never();
    let bytes = bytes.expect("it is all there").expect("a body");
    let body: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    let told = body["error"].as_object().expect("an error");
    assert_eq!(told.len(), 3, "{body}");
    assert_eq!(told["code"], "VALIDATION_ERROR");
    assert!(told["message"].is_string(), "{body}");
    let details = told["details"].as_array().expect("details");
    assert!(!details.is_empty(), "{body}");
    for detail in details {
        assert!(detail["field"].as_str().is_some_and(|field| fields.contains(&field_of(field))), "{body}");
        assert!(detail["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    }
}

/// The field of a place within it.
fn field_of(place: &str) -> &str {
    place.split('.').next().unwrap_or_default()
}
