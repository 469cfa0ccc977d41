//! Routes: list events, show one.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::domain::{Error, EventFilter, Limit, StoredEvent};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, ErrorBody, Failure};
use crate::transport::rest::answer::answer;
use crate::transport::rest::auth_layer::PathOrganization;
use crate::transport::rest::params::Params;
use crate::transport::{properties, rfc3339};

/// A stored event.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredItem {
    /// Its id.
    event_id: String,
    /// The user; null if none.
    #[schema(required)]
    user_id: Option<String>,
    /// What happened.
    #[schema(example = "page_view")]
    event_type: String,
    /// The properties; an empty object if there are none.
    #[schema(value_type = Object)]
    properties: Value,
    /// When it happened, to the millisecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    timestamp: String,
    /// The producer's sequence number; 0 if none.
    seq: u64,
    /// The system that recorded it; null if unknown.
    #[schema(required)]
    source: Option<String>,
    /// The campaign; null if none.
    #[schema(required)]
    campaign_id: Option<String>,
    /// The creative; null if none.
    #[schema(required)]
    creative_id: Option<String>,
    /// When the service received it, to the microsecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.456789Z")]
    received_at: String,
    /// The version of its type that its properties were checked against; 0: its type was not registered.
    #[schema(example = 2)]
    schema_version: u32,
}

impl From<StoredEvent> for StoredItem {
    fn from(event: StoredEvent) -> Self {
        let given = |text: String| (!text.is_empty()).then_some(text);
        Self {
            event_id: event.event_id,
            user_id: given(event.user_id),
            event_type: event.event_type,
            properties: properties::to_value(&event.properties),
            timestamp: rfc3339::write(event.occurred_at),
            seq: event.seq,
            source: given(event.source),
            campaign_id: given(event.campaign_id),
            creative_id: given(event.creative_id),
            received_at: rfc3339::write_micros(event.received_at_micros),
            schema_version: event.schema_version,
        }
    }
}

/// A page of events.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct EventPage {
    /// Newest `timestamp` first.
    events: Vec<StoredItem>,
    /// The `cursor` of the next page, with the same filters; null if this is the last page.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// List stored events, newest first
///
/// Following the cursors returns every event that existed at the start exactly once, also while new
/// ones arrive.
#[utoipa::path(
    get, path = "/api/v1/events", operation_id = "listAnalyticsEvents", tag = "Analytics",
    security(("token" = ["read"])),
    params(
        ("org_id" = Option<String>, Query, description = "The organization; must be that of the token."),
        ("user_id" = Option<String>, Query, description = "Only events of this user."),
        ("event_type" = Option<Vec<String>>, Query, style = Form, explode, max_items = 20, description = "Only events of this type; repeatable, up to 20 times."),
        ("campaign_id" = Option<String>, Query, description = "Only events of this campaign."),
        ("start_date" = Option<String>, Query, description = "Only events at or after this time: RFC 3339, or a date, which means its start in UTC."),
        ("end_date" = Option<String>, Query, description = "Only events before this time: RFC 3339; or up to the end of a date, in UTC."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Largest number of entries; default 50."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page, with the same filters."),
    ),
    responses(
        (status = 200, description = "A page of events.", body = EventPage, headers(
            ("X-Cache" = String, description = "Always `MISS`: lists are not cached."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is included. RFC 3339."),
        )),
        (status = 400, description = "The cursor was changed, or belongs to another list: `INVALID_CURSOR`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let (filter, limit, cursor) = question(params)?;
    let cursors = &context.app.cursors;
    let after = cursors.event("cursor", &cursor, &org_id, &filter).map_err(Failure::invalid_cursor)?;
    let found = context.app.queries.list_events(&org_id, &filter, limit, after.as_ref()).await?;
    let page = EventPage {
        next_cursor: found.value.next.map(|key| cursors.after_event(&org_id, &filter, &key)),
        events: found.value.events.into_iter().map(StoredItem::from).collect(),
    };
    Ok(answer(page, found.watermark, found.cached))
}

/// The filter, the limit, and the cursor, which is not validated yet.
pub(in crate::transport::rest) fn question(mut params: Params) -> Result<(EventFilter, Limit, String), Error> {
    let filter = EventFilter {
        window: params.open_dates(),
        campaign_id: params.filter("campaign_id"),
        user_id: params.filter("user_id"),
        types: params.types("event_type"),
    };
    let limit = params.limit(Limit::PAGE_MAX, Limit::PAGE_DEFAULT);
    let cursor = params.filter("cursor");
    let limit = params.done(limit)?;
    Ok((filter, limit, cursor))
}

/// Show a stored event
#[utoipa::path(
    get, path = "/api/v1/events/{event_id}", operation_id = "getAnalyticsEvent", tag = "Analytics",
    security(("token" = ["read"])),
    params(("event_id" = String, Path, description = "The event's id, percent-encoded.")),
    responses(
        (status = 200, description = "The event.", body = StoredItem, headers(
            ("X-Cache" = String, description = "Always `MISS`: events are not cached."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time can be found. RFC 3339."),
        )),
        (status = 404, description = "There is no event with this id: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let found = context.app.queries.event(&org_id, &super::named(path)?).await?;
    Ok(answer(StoredItem::from(found.value), found.watermark, found.cached))
}
