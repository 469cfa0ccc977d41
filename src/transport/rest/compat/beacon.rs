//! The beacon: `POST /beacon?write_key=…`, for `navigator.sendBeacon`.
//!
//! A page that is being left cannot wait for a preflight, and cannot set headers. The body is the JSON of
//! `POST /api/v1/events` (one object with `events`), sent as `text/plain`, the key is in the query, and nothing reads
//! the answer.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::{Format, Head, Reading, outcome, route};
use crate::domain::EventDraft;
use crate::event_intake::BatchResults;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::foreign_event::ForeignEvent;
use crate::transport::rest::auth_layer::Routes;
use crate::transport::rest::v1::batch::Batch;

static BEACON: Format = Format { has_key_in_body: false, read, answer };

/// Adds the path.
pub(super) fn add(routes: Routes) -> Routes {
    route(routes, "/beacon", &BEACON)
}

fn answer(_: &Head, results: &BatchResults) -> Response {
    if outcome::is_refused(results) {
        return outcome::answer(results, &serde_json::Value::Null);
    }
    StatusCode::NO_CONTENT.into_response()
}

fn read(_: &Head, bytes: &Bytes, context: &TransportContext) -> Result<Reading, Failure> {
    let batch = Batch::read(bytes)?;
    let org_ids = batch.org_ids().map(str::to_owned).collect();
    let drafts = batch.drafts(context.app.config.properties_bytes_max);
    Ok(Reading { events: drafts.into_iter().map(owned).collect(), key: None, org_ids })
}

fn owned(draft: EventDraft<'_>) -> ForeignEvent {
    ForeignEvent {
        event_id: draft.event_id.to_owned(),
        event_type: draft.event_type.to_owned(),
        user_id: draft.user_id.to_owned(),
        source: draft.source.to_owned(),
        campaign_id: draft.campaign_id.to_owned(),
        creative_id: draft.creative_id.to_owned(),
        occurred_at: draft.occurred_at,
        seq: draft.seq,
        properties: match draft.properties {
            crate::domain::PropertiesDraft::None => crate::domain::PropertiesDraft::None,
            crate::domain::PropertiesDraft::Canonical(text) => {
                crate::domain::PropertiesDraft::Canonical(text.into_owned().into())
            }
        },
        faults: draft.unreadable,
    }
}
