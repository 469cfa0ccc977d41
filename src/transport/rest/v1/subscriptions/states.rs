//! The states of subscriptions, of their users and of single events.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::super::named;
use super::response::{DeliveryStatus, SubscriptionState, UserDeliveries};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, ErrorBody, Failure};

/// Show the state of a subscription
///
/// What waits and since when, what failed, and whether the handler can be called.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}/status", operation_id = "getSubscriptionStatus", tag = "Deliveries",
    security(("token" = ["read"])),
    params(("name" = String, Path, description = "Which subscription.")),
    responses(
        (status = 200, description = "Its state.", body = SubscriptionState),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn subscription(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<SubscriptionState>, Failure> {
    Ok(Json(context.app.subscriptions.status(&caller.org_id, &named(path)?).await?.into()))
}

/// Show where an event of a subscription is
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}/events/{event_id}", operation_id = "getDeliveryStatus",
    tag = "Deliveries", security(("token" = ["read"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("event_id" = String, Path, description = "The event's id, percent-encoded."),
    ),
    responses(
        (status = 200, description = "Where it is.", body = DeliveryStatus),
        (status = 404, description = "There is no such subscription, or the event does not wait in it and no record of it is kept: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn event(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<DeliveryStatus>, Failure> {
    let (name, event_id) = named(path)?;
    Ok(Json(context.app.subscriptions.event(&caller.org_id, &name, &event_id).await?.into()))
}

/// Show the state of a user's events in a subscription
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}/users/{user_id}", operation_id = "getUserDeliveries", tag = "Deliveries",
    security(("token" = ["read"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("user_id" = String, Path, description = "The user, percent-encoded."),
    ),
    responses(
        (status = 200, description = "The state; of a user without events, that of the first one to come.", body = UserDeliveries),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn user(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<UserDeliveries>, Failure> {
    let (name, user_id) = named(path)?;
    let status = context.app.subscriptions.user(&caller.org_id, &name, &user_id).await?;
    Ok(Json(UserDeliveries::new(user_id, &status)))
}

/// Pause a user of a subscription
///
/// The user's events wait; those of others go on.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/users/{user_id}/pause", operation_id = "pauseUserDeliveries",
    tag = "Deliveries", security(("token" = ["admin"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("user_id" = String, Path, description = "The user, percent-encoded."),
    ),
    responses(
        (status = 200, description = "The user's state.", body = UserDeliveries),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn pause_user(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<UserDeliveries>, Failure> {
    set_paused(&context, &caller, named(path)?, true).await
}

/// Resume a user of a subscription
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/users/{user_id}/resume", operation_id = "resumeUserDeliveries",
    tag = "Deliveries", security(("token" = ["admin"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("user_id" = String, Path, description = "The user, percent-encoded."),
    ),
    responses(
        (status = 200, description = "The user's state.", body = UserDeliveries),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn resume_user(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<UserDeliveries>, Failure> {
    set_paused(&context, &caller, named(path)?, false).await
}

async fn set_paused(
    context: &TransportContext,
    caller: &Caller,
    (name, user_id): (String, String),
    is_paused: bool,
) -> Result<Json<UserDeliveries>, Failure> {
    let subscriptions = &context.app.subscriptions;
    subscriptions.pause_user(&caller.org_id, &name, &user_id, is_paused).await?;
    let status = subscriptions.user(&caller.org_id, &name, &user_id).await?;
    Ok(Json(UserDeliveries::new(user_id, &status)))
}
