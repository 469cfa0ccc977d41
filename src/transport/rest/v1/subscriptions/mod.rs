//! Subscriptions: which events are handed to whom, how that is getting on, and what failed.

pub(in crate::transport::rest) mod letters;
mod request;
mod response;
pub(in crate::transport::rest) mod states;

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};

use super::{named, read};
use crate::transport::auth::{Caller, RequiredAccess, Scope};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::auth_layer::Routes;
use crate::transport::rest::body;
use request::SubscriptionFields;
use response::{CreatedSubscription, StoredSubscription, SubscriptionList};

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let (read, admin) = (RequiredAccess::Scope(Scope::Read), RequiredAccess::Scope(Scope::Admin));
    routes
        .route("/api/v1/subscriptions", read, get(list))
        .route("/api/v1/subscriptions", admin, post(create))
        .route("/api/v1/subscriptions/{name}", read, get(show))
        .route("/api/v1/subscriptions/{name}", admin, patch(change).delete(delete))
        .route("/api/v1/subscriptions/{name}/pause", admin, post(pause))
        .route("/api/v1/subscriptions/{name}/resume", admin, post(resume))
        .route("/api/v1/subscriptions/{name}/status", read, get(states::subscription))
        .route("/api/v1/subscriptions/{name}/events/{event_id}", read, get(states::event))
        .route("/api/v1/subscriptions/{name}/users/{user_id}", read, get(states::user))
        .route("/api/v1/subscriptions/{name}/users/{user_id}/pause", admin, post(states::pause_user))
        .route("/api/v1/subscriptions/{name}/users/{user_id}/resume", admin, post(states::resume_user))
        .route("/api/v1/subscriptions/{name}/dead-letters", read, get(letters::list))
        .route("/api/v1/subscriptions/{name}/dead-letters/{number}", read, get(letters::show))
        .route("/api/v1/subscriptions/{name}/dead-letters/replay", admin, post(letters::replay))
        .route("/api/v1/subscriptions/{name}/dead-letters/discard", admin, post(letters::discard))
}

/// Create a subscription
///
/// It hands the events that its filter lets through to a handler, each user's once and in order.
#[utoipa::path(
    post, path = "/api/v1/subscriptions", operation_id = "createSubscription", tag = "Deliveries",
    security(("token" = ["admin"])),
    request_body(content = SubscriptionFields, description = "The subscription. Unknown fields are ignored."),
    responses(
        (status = 201, description = "The subscription, with the secret that was made for it: it is shown only here.", body = CreatedSubscription),
        (status = 409, description = "There is one of this name, or the organization has as many as it may have: `CONFLICT`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn create(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<CreatedSubscription>), Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let (name, start, draft) = read::<SubscriptionFields<'_>>(&bytes)?.read_new()?;
    let (subscription, secret) = context.app.subscriptions.create(&caller.org_id, &name, start, draft).await?;
    Ok((StatusCode::CREATED, Json(CreatedSubscription { subscription: subscription.into(), secret })))
}

/// List subscriptions
#[utoipa::path(
    get, path = "/api/v1/subscriptions", operation_id = "listSubscriptions", tag = "Deliveries",
    security(("token" = ["read"])),
    responses((status = 200, description = "All subscriptions of the organization.", body = SubscriptionList), AnyFailure),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
) -> Result<Json<SubscriptionList>, Failure> {
    let all = context.app.subscriptions.list(&caller.org_id).await?;
    Ok(Json(SubscriptionList { subscriptions: all.into_iter().map(StoredSubscription::from).collect() }))
}

/// Show a subscription
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}", operation_id = "getSubscription", tag = "Deliveries",
    security(("token" = ["read"])),
    params(("name" = String, Path, description = "Which subscription.")),
    responses(
        (status = 200, description = "The subscription.", body = StoredSubscription),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredSubscription>, Failure> {
    Ok(Json(context.app.subscriptions.find(&caller.org_id, &named(path)?).await?.into()))
}

/// Change a subscription
///
/// What is missing in the body stays as it is. Events that were read already are delivered, whatever the filter says now.
/// A new handler gets what the old one has not handled.
#[utoipa::path(
    patch, path = "/api/v1/subscriptions/{name}", operation_id = "changeSubscription", tag = "Deliveries",
    security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    request_body(content = SubscriptionFields, description = "What to change. Unknown fields are ignored."),
    responses(
        (status = 200, description = "The subscription as it is now.", body = StoredSubscription),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn change(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<StoredSubscription>, Failure> {
    let name = named(path)?;
    let bytes = body::read(request, &context.app.config).await?;
    let draft = read::<SubscriptionFields<'_>>(&bytes)?.read_change()?;
    Ok(Json(context.app.subscriptions.change(&caller.org_id, &name, draft).await?.into()))
}

/// Delete a subscription
///
/// With its dead letters, and with the events that wait.
#[utoipa::path(
    delete, path = "/api/v1/subscriptions/{name}", operation_id = "deleteSubscription", tag = "Deliveries",
    security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    responses(
        (status = 204, description = "It is deleted."),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn delete(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Failure> {
    context.app.subscriptions.delete(&caller.org_id, &named(path)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a subscription
///
/// Its events wait. What its handler has goes on.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/pause", operation_id = "pauseSubscription", tag = "Deliveries",
    security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    responses(
        (status = 200, description = "The subscription, which is paused.", body = StoredSubscription),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn pause(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredSubscription>, Failure> {
    Ok(Json(context.app.subscriptions.set_paused(&caller.org_id, &named(path)?, true).await?.into()))
}

/// Resume a subscription
///
/// One that was paused, whose receiver answered 410, or that has had too many dead letters.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/resume", operation_id = "resumeSubscription", tag = "Deliveries",
    security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    responses(
        (status = 200, description = "The subscription, which goes on.", body = StoredSubscription),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn resume(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredSubscription>, Failure> {
    Ok(Json(context.app.subscriptions.set_paused(&caller.org_id, &named(path)?, false).await?.into()))
}
