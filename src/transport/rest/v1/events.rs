//! Route: accept a batch of events.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::batch::{self, Batch, EventsBody};
use crate::domain::{Error, FieldError, Verdict};
use crate::event_intake::{EventBatch, Idempotency};
use crate::idempotency::IdempotencyKey;
use crate::ingest::pipeline::Durability;
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, Detail, ErrorBody, Failure};
use crate::transport::error::rate_limit;
use crate::transport::rest::body;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The `Retry-After` for undecided events.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The verdicts on a batch.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct TakenEvents {
    /// New, durable and counted.
    #[schema(example = 98)]
    accepted: usize,
    /// Already stored with the same payload; not counted again.
    #[schema(example = 1)]
    duplicates: usize,
    /// All other events, in order.
    rejected: Vec<RejectedEvent>,
}

/// An event that was not accepted.
#[derive(Serialize, ToSchema)]
struct RejectedEvent {
    /// Its index in the batch, from 0.
    #[schema(example = 7)]
    index: usize,
    /// `INVALID`: a field is missing or wrong. `SCHEMA`: the properties do not satisfy the schema
    /// of the event's type. `UNKNOWN_TYPE`: the type is not registered, and the organization
    /// rejects such events. `TOO_OLD`, `IN_FUTURE`: its time is out of range. `CONFLICT`: its id is
    /// already stored with another payload, which stays. `UNDECIDED`: its id could not be looked
    /// up; send it again later.
    #[schema(example = "INVALID")]
    code: &'static str,
    /// What is wrong with `field`, and what is allowed.
    #[schema(example = "is required")]
    message: String,
    /// The first invalid field; `event` for the event as a whole.
    #[schema(example = "timestamp")]
    field: String,
    /// Every invalid field, including the first.
    #[schema(min_items = 1)]
    details: Vec<Detail>,
}

/// Send a batch of events
///
/// Answers when the accepted events are durable. Each event is validated by itself. It is always
/// safe to send again. If no event was accepted, the answer is an error: 503 if sending the same
/// batch again may help (some events could not be decided), otherwise 422.
///
/// With an `Idempotency-Key`, you can repeat the call for 24 hours: the same key with the same
/// events returns the first answer, also while the first call runs and after a restart. Answers
/// with undecided events and refusals (401, 403, 429, 503) are not kept.
#[utoipa::path(
    post, path = "/api/v1/events", operation_id = "postEvents", tag = "Analytics", security(("token" = ["ingest"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters, within the organization. Events without an `event_id` are given one, the same each time.")),
    request_body(content = EventsBody, description = "The events. Unknown fields are ignored; null means missing."),
    responses(
        (status = 202, description = "The verdicts.", body = TakenEvents, headers(
            ("Idempotency-Replayed" = String, description = "`true` if this is the stored answer of an earlier call with the key."),
            ("RateLimit" = String, description = "What remains of the organization's limit, if there is one; see draft-ietf-httpapi-ratelimit-headers."),
            ("RateLimit-Policy" = String, description = "That limit: the number of events, and the window in seconds."),
        )),
        BodyFailure,
        AnyFailure,
        (status = 422, description = "No event was accepted, or the request is invalid: `VALIDATION_ERROR`. Or the key was used for other events before: `IDEMPOTENCY_KEY_REUSED`.", body = ErrorBody, headers(
            ("Idempotency-Replayed" = String, description = "`true` if this is the stored answer of an earlier call with the key."),
        )),
    ),
)]
pub(in crate::transport::rest) async fn take(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    request: Request,
) -> Result<Response, Failure> {
    let key = idempotency_key(request.headers());
    let bytes = body::read(request, &context.app.config).await?;
    let batch = Batch::read(&bytes)?;
    batch.org_ids().try_for_each(|org_id| caller.must_be(org_id)).map_err(|refusal| refusal.error())?;
    let drafts = batch.drafts(context.app.config.properties_bytes_max);
    let key = key?;
    let batch = EventBatch {
        org_id: &caller.org_id,
        drafts,
        bytes: bytes.len(),
        idempotency: key.as_ref().map(|key| Idempotency { key, body_hash: None }),
        durability: Durability::Logged,
    };
    let intake = &context.app.intake;
    let results = intake.submit(batch).await?.results().await?;
    let mut response = answer(&results.verdicts);
    if results.is_replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    rate_limit::tell_left(intake.events_left(&caller.org_id), response.headers_mut());
    Ok(response)
}

/// The idempotency key of a call, if it has one.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Error> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let wrong = |message: &str| Error::invalid_field("Idempotency-Key", message);
    if keys.next().is_some() {
        return Err(wrong("must be given only once"));
    }
    let key = str::from_utf8(key.as_bytes()).ok().and_then(IdempotencyKey::parse);
    key.map(Some).ok_or_else(|| wrong(IdempotencyKey::EXPECTED))
}

fn answer(verdicts: &[Verdict]) -> Response {
    match taken(verdicts) {
        Ok(taken) => (StatusCode::ACCEPTED, Json(taken)).into_response(),
        Err(failure) => failure.into_response(),
    }
}

/// The answer to these verdicts.
///
/// # Errors
/// If no event was accepted: `UNAVAILABLE` if sending the same batch again may help, otherwise
/// `VALIDATION_ERROR` with every invalid field and the code of its event.
fn taken(verdicts: &[Verdict]) -> Result<TakenEvents, Failure> {
    let count = |wanted: &Verdict| verdicts.iter().filter(|verdict| *verdict == wanted).count();
    let (accepted, duplicates) = (count(&Verdict::Accepted), count(&Verdict::Duplicate));
    let rejected: Vec<RejectedEvent> =
        verdicts.iter().enumerate().filter_map(|(index, verdict)| rejected(index, verdict)).collect();
    if accepted + duplicates > 0 {
        return Ok(TakenEvents { accepted, duplicates, rejected });
    }
    if verdicts.contains(&Verdict::Undecided) {
        let message = "events are old, and whether they are new cannot be told just now; none was taken";
        return Err(Error::unavailable(message, RETRY_AFTER).into());
    }
    let named = rejected.into_iter().flat_map(|RejectedEvent { index, code, details, .. }| {
        details.into_iter().map(move |Detail { field, message, .. }| Detail {
            field: format!("events[{index}].{field}"),
            message,
            code: Some(code),
        })
    });
    Err(Failure::no_event_accepted(named.collect()))
}

fn rejected(index: usize, verdict: &Verdict) -> Option<RejectedEvent> {
    let of_id = |message: &str| vec![FieldError::new("event_id", message)];
    let (code, faults) = match verdict {
        Verdict::Accepted | Verdict::Duplicate => return None,
        Verdict::Conflict => ("CONFLICT", of_id("is already stored with another payload, which stays")),
        Verdict::Undecided => {
            ("UNDECIDED", of_id("is old, and whether it is new cannot be told just now; send it again later"))
        }
        Verdict::Rejected(rejection) => (rejection.code.as_str(), batch::faults(&rejection.errors)),
    };
    let details: Vec<Detail> = faults.into_iter().map(Detail::from).collect();
    let Detail { field, message, .. } = details.first()?.clone(); // There is at least one.
    Some(RejectedEvent { index, code, message, field, details })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Rejection, RejectionCode};

    #[test]
    fn every_field_at_fault_has_a_detail_of_its_own() {
        let errors = vec![FieldError::new("event_id", "is required"), FieldError::new("occurred_at", "must be a time")];
        let wrong = Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors });
        let fields = |details: &[Detail]| details.iter().map(|detail| detail.field.clone()).collect::<Vec<_>>();
        let some = taken(&[Verdict::Accepted, wrong.clone()]).expect("one was accepted");
        assert_eq!(fields(&some.rejected[0].details), ["event_id", "timestamp"]);
        assert_eq!((&*some.rejected[0].field, &*some.rejected[0].message), ("event_id", "is required"));
        let none = taken(&[wrong.clone(), wrong, Verdict::Conflict]).err().expect("none was accepted");
        let named: Vec<_> = none.details().iter().map(|detail| (&*detail.field, detail.code)).collect();
        let expected = [
            ("events[0].event_id", Some("INVALID")),
            ("events[0].timestamp", Some("INVALID")),
            ("events[1].event_id", Some("INVALID")),
            ("events[1].timestamp", Some("INVALID")),
            ("events[2].event_id", Some("CONFLICT")),
        ];
        assert_eq!(named, expected);
    }
}
