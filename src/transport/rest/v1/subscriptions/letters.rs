//! Dead letters: listed, shown, replayed and discarded.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};

use super::super::{named, read};
use super::request::LetterSelection;
use super::response::{DiscardedLetters, LetterList, ReplayedLetters, StoredLetter};
use crate::deliveries::subscriptions::{LETTERS_DEFAULT, Letters};
use crate::domain::Error;
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::body;
use crate::transport::rest::params::Params;

/// List dead letters
///
/// Events of a subscription that were given up.
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}/dead-letters", operation_id = "listDeadLetters", tag = "Deliveries",
    security(("token" = ["read"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("from" = Option<u64>, Query, description = "The first number to list."),
        ("limit" = Option<u32>, Query, description = "The most to list, 1 to 1,000. Default: 100."),
    ),
    responses(
        (status = 200, description = "Dead letters by number; fewer than were asked for, when they are large.", body = LetterList),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    mut params: Params,
) -> Result<Json<LetterList>, Failure> {
    let name = named(path)?;
    let from = params.text("from").map_or(Ok(0), |text| text.parse());
    let from =
        from.map_err(|_| Error::invalid_field("from", "must be a whole number from 0 to 18446744073709551615"))?;
    let limit = params.text("limit").map_or(Ok(LETTERS_DEFAULT), |text| text.parse());
    let limit = limit.map_err(|_| Error::invalid_field("limit", "must be 1 to 1000"))?;
    let (letters, next) = context.app.subscriptions.letters(&caller.org_id, &name, from, limit).await?;
    Ok(Json(LetterList { dead_letters: letters.into_iter().map(StoredLetter::from).collect(), next }))
}

/// Show a dead letter
#[utoipa::path(
    get, path = "/api/v1/subscriptions/{name}/dead-letters/{number}", operation_id = "getDeadLetter",
    tag = "Deliveries", security(("token" = ["read"])),
    params(
        ("name" = String, Path, description = "Which subscription."),
        ("number" = u64, Path, description = "The dead letter's number."),
    ),
    responses(
        (status = 200, description = "The dead letter.", body = StoredLetter),
        (status = 404, description = "There is no such subscription, or no such dead letter: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Json<StoredLetter>, Failure> {
    let (name, number) = named(path)?;
    let number = number.parse();
    let number = number.map_err(|_| Error::invalid_field("number", "must be a whole number"))?;
    Ok(Json(context.app.subscriptions.letter(&caller.org_id, &name, number).await?.into()))
}

/// Replay dead letters
///
/// They are delivered again in the order of their numbers, before other events of their users, and marked as replays.
/// Attempts are counted anew. One that fails again becomes a dead letter with a new number.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/dead-letters/replay", operation_id = "replayDeadLetters",
    tag = "Deliveries", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    request_body(content = LetterSelection, description = "Which dead letters."),
    responses(
        (status = 200, description = "How many are delivered again; that is recorded.", body = ReplayedLetters),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn replay(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<ReplayedLetters>, Failure> {
    let (name, letters) = selection(&context, path, request).await?;
    Ok(Json(ReplayedLetters { replayed: context.app.subscriptions.replay(&caller.org_id, &name, &letters).await? }))
}

/// Discard dead letters
///
/// They are deleted. The gaps that they leave stay.
#[utoipa::path(
    post, path = "/api/v1/subscriptions/{name}/dead-letters/discard", operation_id = "discardDeadLetters",
    tag = "Deliveries", security(("token" = ["admin"])),
    params(("name" = String, Path, description = "Which subscription.")),
    request_body(content = LetterSelection, description = "Which dead letters."),
    responses(
        (status = 200, description = "How many were deleted; that is recorded.", body = DiscardedLetters),
        (status = 404, description = "The organization has no such subscription: `NOT_FOUND`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn discard(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<DiscardedLetters>, Failure> {
    let (name, letters) = selection(&context, path, request).await?;
    Ok(Json(DiscardedLetters { discarded: context.app.subscriptions.discard(&caller.org_id, &name, &letters).await? }))
}

/// The subscription that a path names, and the dead letters that a body names.
async fn selection(
    context: &TransportContext,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<(String, Letters), Failure> {
    let name = named(path)?;
    let bytes = body::read(request, &context.app.config).await?;
    Ok((name, read::<LetterSelection<'_>>(&bytes)?.read()?))
}
