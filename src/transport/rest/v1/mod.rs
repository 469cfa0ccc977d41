//! The customer analytics interface: everything under `/api/v1`.

pub(super) mod batch;
pub(super) mod event_types;
pub(super) mod events;
pub(super) mod lists;
pub(super) mod members;
pub(super) mod metrics;
pub(super) mod organizations;
pub(super) mod sql;
pub(super) mod subscriptions;
pub(super) mod users;
pub(super) mod write_keys;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::routing::{delete, get, post, put};
use bytes::Bytes;
use serde::Deserialize;

use super::auth_layer::Routes;
use super::fields::{self, Text};
use super::{campaigns, users as older_users};
use crate::domain::Error;
use crate::transport::auth::{Caller, RequiredAccess, Scope};
use crate::transport::error::failure::Failure;

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let (ingest, read, admin) =
        (RequiredAccess::Scope(Scope::Ingest), RequiredAccess::Scope(Scope::Read), RequiredAccess::Scope(Scope::Admin));
    subscriptions::add(routes)
        .route("/api/v1/events", ingest, post(events::take))
        .route("/api/v1/event-types", read, get(event_types::list))
        .route("/api/v1/event-types/{type}", read, get(event_types::show))
        .route("/api/v1/event-types/{type}", admin, put(event_types::put))
        .route("/api/v1/events", read, get(lists::list))
        .route("/api/v1/events/{event_id}", read, get(lists::show))
        .route("/api/v1/metrics", ingest, post(metrics::put))
        .route("/api/v1/metrics/summary", read, get(metrics::summary))
        .route("/api/v1/metrics/dau", read, get(metrics::daily_active_users))
        .route("/api/v1/users/top", read, get(older_users::top))
        .route("/api/v1/campaigns/top", read, get(campaigns::top))
        .route("/api/v1/organizations/top", admin, get(organizations::top))
        .route("/api/v1/organizations/{org_id}", admin, put(organizations::put).get(organizations::show))
        .route("/api/v1/organizations/{org_id}/members", admin, get(members::list))
        .route("/api/v1/organizations/{org_id}/members/{user_id}", admin, put(members::put))
        .route("/api/v1/sql", RequiredAccess::Nothing, post(sql::run))
        .route("/api/v1/write-keys", admin, post(write_keys::create).get(write_keys::list))
        .route("/api/v1/write-keys/{key_id}", admin, delete(write_keys::revoke))
        .route("/api/v1/users/{user_id}", admin, put(users::put).get(users::show))
}

/// The parameters of a path.
fn named<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Failure> {
    let Path(named) = path.map_err(|_| Error::invalid_field("path", "must be UTF-8, percent-encoded"))?;
    Ok(named)
}

/// Parses a body as one JSON object, without validating its fields.
fn read<'a, T: Deserialize<'a>>(bytes: &'a Bytes) -> Result<T, Failure> {
    fields::read_object(bytes).map_err(fields::NotAnObject::failure)
}

/// Checks that an organization in the body is the caller's.
fn check_org_id(caller: &Caller, org_id: &Text<'_>) -> Result<(), Failure> {
    let Some(org_id) = org_id.org_id() else { return Ok(()) };
    Ok(caller.must_be(org_id).map_err(|refusal| refusal.error())?)
}
