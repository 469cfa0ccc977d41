//! Routes of single events: accept one, list, show one.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answer::answer;
use super::auth_layer::PathOrganization;
use super::body;
use super::event_body::EventBody;
use super::params::Params;
use crate::domain::{Error, EventFilter, Limit, OrgId, PageKey, StoredEvent, Verdict};
use crate::event_intake::EventBatch;
use crate::ingest::pipeline::Durability;
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, ErrorBody, Failure};
use crate::transport::error::rate_limit;
use crate::transport::{Cursors, properties, rfc3339};

/// The `Retry-After` for an undecided event.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The verdict on an event.
#[derive(Serialize, ToSchema)]
pub(super) struct Taken<'a> {
    /// `accepted`: new, durable and counted. `duplicate`: already stored with the same payload.
    /// `conflict`: its id is already stored with another payload, which stays. Only `accepted` was
    /// counted.
    #[schema(value_type = Outcome)]
    status: &'static str,
    /// The event's id.
    #[schema(example = "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77")]
    event_id: &'a str,
}

/// The values of `status`.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "describes")]
pub(super) enum Outcome {
    /// New.
    Accepted,
    /// Known.
    Duplicate,
    /// Known as another.
    Conflict,
}

/// Send one event
///
/// Answers when the event is durable. It is always safe to send it again.
#[utoipa::path(
    post, path = "/events", operation_id = "postEvent", tag = "Events", security(("token" = ["ingest"])),
    request_body(content = EventBody, description = "The event. Unknown fields are ignored; null means missing."),
    responses(
        (status = 202, description = "The verdict.", body = Taken, headers(
            ("RateLimit" = String, description = "What remains of the organization's limit, if there is one; see draft-ietf-httpapi-ratelimit-headers."),
            ("RateLimit-Policy" = String, description = "That limit: the number of events, and the window in seconds."),
        )),
        (status = 408, description = "The body did not arrive in time: `REQUEST_TIMEOUT`.", body = ErrorBody),
        (status = 413, description = "The body is too large: `TOO_LARGE`.", body = ErrorBody),
        (status = 415, description = "The body is not `application/json`: `UNSUPPORTED_MEDIA_TYPE`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(super) async fn take(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let body = EventBody::read(&bytes)?;
    if let Some(org_id) = body.org_id() {
        caller.must_be(org_id).map_err(|refusal| refusal.error())?;
    }
    let draft = body.draft(context.app.config.properties_bytes_max);
    let event_id = draft.event_id;
    let batch = EventBatch {
        org_id: &caller.org_id,
        drafts: [draft],
        bytes: bytes.len(),
        idempotency: None,
        durability: Durability::Logged,
    };
    let intake = &context.app.intake;
    let results = intake.submit(batch).await?.results().await?;
    let status = match results.verdicts.into_iter().next() {
        Some(Verdict::Accepted) => "accepted",
        Some(Verdict::Duplicate) => "duplicate",
        Some(Verdict::Conflict) => "conflict",
        Some(Verdict::Rejected(rejection)) => return Err(Error::invalid(EventBody::faults(rejection.errors)).into()),
        Some(Verdict::Undecided) => {
            let message = "whether the event is new cannot be told just now";
            return Err(Error::unavailable(message, RETRY_AFTER).into());
        }
        None => return Err(Error::internal().into()),
    };
    let mut response = (StatusCode::ACCEPTED, Json(Taken { status, event_id })).into_response();
    rate_limit::tell_left(intake.events_left(&caller.org_id), response.headers_mut());
    Ok(response)
}

/// A stored event.
#[derive(Serialize, ToSchema)]
pub(super) struct Stored {
    /// Its id.
    event_id: String,
    /// What happened.
    #[serde(rename = "type")]
    #[schema(example = "click")]
    event_type: String,
    /// The campaign; null if none.
    #[schema(required)]
    campaign_id: Option<String>,
    /// The creative; null if none.
    #[schema(required)]
    creative_id: Option<String>,
    /// The system that recorded it; null if unknown.
    #[schema(required)]
    source: Option<String>,
    /// The user; null if none.
    #[schema(required)]
    user_id: Option<String>,
    /// When it happened, to the millisecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    occurred_at: String,
    /// When the service received it, to the microsecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.456789Z")]
    received_at: String,
    /// The producer's sequence number; left out if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = u64, required = false, nullable = false)]
    seq: Option<u64>,
    /// The properties; an empty object if there are none.
    #[schema(value_type = Object)]
    metadata: Value,
}

impl From<StoredEvent> for Stored {
    fn from(event: StoredEvent) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            event_id: event.event_id,
            event_type: event.event_type,
            campaign_id: given(event.campaign_id),
            creative_id: given(event.creative_id),
            source: given(event.source),
            user_id: given(event.user_id),
            occurred_at: rfc3339::write(event.occurred_at),
            received_at: rfc3339::write_micros(event.received_at_micros),
            seq: (event.seq != 0).then_some(event.seq),
            metadata: properties::to_value(&event.properties),
        }
    }
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// Newest `occurred_at` first.
    events: Vec<Stored>,
    /// The `cursor` of the next page, with the same filters; null if this is the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List stored events, newest first
#[utoipa::path(
    get, path = "/events", operation_id = "listEvents", tag = "Events", security(("token" = ["read"])),
    params(
        ("campaign_id" = Option<String>, Query, description = "Only events of this campaign."),
        ("user_id" = Option<String>, Query, description = "Only events of this user."),
        ("type" = Option<Vec<String>>, Query, style = Form, explode, max_items = 20, description = "Only events of this type; repeatable, up to 20 times."),
        ("from" = Option<String>, Query, format = DateTime, description = "Only events at or after this time. RFC 3339, any offset."),
        ("to" = Option<String>, Query, format = DateTime, description = "Only events before this time; after `from`."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Largest number of entries; default 50."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page, with the same filters."),
    ),
    responses(
        (status = 200, description = "A page of events.", body = Page, headers(
            ("X-Cache" = String, description = "Always `MISS`: lists are not cached."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is included. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(super) async fn list(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let cursors = &context.app.cursors;
    let (filter, limit, after) = question(cursors, &org_id, params)?;
    let found = context.app.queries.list_events(&org_id, &filter, limit, after.as_ref()).await?;
    let page = Page {
        next_cursor: found.value.next.map(|key| cursors.after_event(&org_id, &filter, &key)),
        events: found.value.events.into_iter().map(Stored::from).collect(),
    };
    Ok(answer(page, found.watermark, found.cached))
}

pub(super) fn question(
    cursors: &Cursors,
    org_id: &OrgId,
    mut params: Params,
) -> Result<(EventFilter, Limit, Option<PageKey>), Error> {
    let filter = EventFilter {
        window: params.open_window(),
        campaign_id: params.filter("campaign_id"),
        user_id: params.filter("user_id"),
        types: params.types("type"),
    };
    let limit = params.limit(Limit::PAGE_MAX, Limit::PAGE_DEFAULT);
    let cursor = params.filter("cursor");
    let limit = params.done(limit)?;
    // A token cannot be judged by filters that are wrong themselves.
    let after = cursors.event("cursor", &cursor, org_id, &filter)?;
    Ok((filter, limit, after))
}

/// Show a stored event
#[utoipa::path(
    get, path = "/events/{event_id}", operation_id = "getEvent", tag = "Events", security(("token" = ["read"])),
    params(("event_id" = String, Path, description = "The event's id, percent-encoded.")),
    responses(
        (status = 200, description = "The event.", body = Stored, headers(
            ("X-Cache" = String, description = "Always `MISS`: events are not cached."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time can be found. RFC 3339."),
        )),
        (status = 404, description = "There is no event with this id: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(super) async fn show(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    event_id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let Path(event_id) = event_id.map_err(|_| Error::invalid_field("event_id", "must be UTF-8, percent-encoded"))?;
    let found = context.app.queries.event(&org_id, &event_id).await?;
    Ok(answer(Stored::from(found.value), found.watermark, found.cached))
}
