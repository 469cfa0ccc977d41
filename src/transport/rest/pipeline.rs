//! The event pipeline: events in, and where each is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use tallyhouse_delivery::domain::{EventState, EventStatus, FinalOutcome};
use tallyhouse_delivery::handler::RestoreSummary;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth_layer::Routes;
use super::body;

use super::fields::{self, FieldErrors, FirstItems, Text};
use crate::deliveries::event_pipeline::{
    EventPipeline, PIPELINE_EVENTS_MAX, PipelineEvent, PipelineStatus, PipelineVerdict, state_name,
};
use crate::domain::{Error, FieldError, PropertiesDraft};
use crate::transport::auth::{Caller, RequiredAccess, Scope};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, ErrorBody, Failure};

/// Longest id of an event, in characters.
const EVENT_ID_CHARS_MAX: usize = 128;
/// The highest seq: above it, numbers of JavaScript are not exact.
const SEQ_MAX: u64 = (1 << 53) - 1;

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let scope = RequiredAccess::Scope;
    routes
        .route("/pipeline/events", scope(Scope::Ingest), post(take))
        .route("/pipeline/events/{event_id}", scope(Scope::Read), get(show))
        .route("/pipeline/status", scope(Scope::Read), get(status))
        .route("/pipeline/rebuild", scope(Scope::Admin), post(rebuild))
}

/// An event, as it is sent.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PipelineEventBody<'a> {
    /// Its id: 1 to 128 characters. One is made if it is left out.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128)]
    event_id: Text<'a>,
    /// Its user, whose events are processed in the order of their seqs.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "user_42")]
    user_id: Text<'a>,
    /// What happened.
    #[serde(borrow, default, rename = "type")]
    #[schema(value_type = String, required, min_length = 1, example = "order_placed")]
    event_type: Text<'a>,
    /// Anything else. `seq`, if it is there, is its place among its user's events: a positive integer up to 2^53 - 1.
    #[serde(borrow, default)]
    #[schema(value_type = Object, required, example = json!({"seq": 1}))]
    payload: Option<&'a RawValue>,
    /// When it happened, as RFC 3339. Left out: when it arrives.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    occurred_at: Text<'a>,
}

/// Several events, as they are sent.
#[derive(Deserialize)]
struct PipelineEventsBody<'a> {
    #[serde(borrow, default)]
    events: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct PayloadSeq<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    seq: Option<&'a RawValue>,
}

/// A field that is there, null included.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl PipelineEventBody<'_> {
    /// The event, as far as it can be read; what is wrong is added to the faults, under a prefix.
    fn event(&self, prefix: &str, properties_bytes_max: usize, faults: &mut Vec<FieldError>) -> PipelineEvent {
        let mut own = FieldErrors::default();
        let event_id = match &self.event_id {
            Text::Absent => Uuid::now_v7().to_string(),
            given => {
                let id = own.optional("eventId", given);
                let chars = id.chars().count();
                if matches!(given, Text::Given(_)) && !(1..=EVENT_ID_CHARS_MAX).contains(&chars) {
                    own.add("eventId", "must be 1 to 128 characters");
                }
                id.to_owned()
            }
        };
        let user_id = required(&mut own, "userId", &self.user_id);
        let event_type = required(&mut own, "type", &self.event_type);
        if matches!(&self.occurred_at, Text::Given(text) if text.is_empty()) {
            own.add("occurredAt", "must be an RFC 3339 time");
        }
        let occurred_at = own.time("occurredAt", &self.occurred_at);
        let payload = match self.payload {
            Some(payload) if payload.get() != "null" => own.object("payload", Some(payload), properties_bytes_max),
            _ => {
                own.add("payload", "is required");
                PropertiesDraft::None
            }
        };
        let seq = self.payload.map_or(Ok(0), seq).unwrap_or_else(|()| {
            own.add("payload.seq", "must be a whole number from 1 to 9007199254740991");
            0
        });
        let mut seen: Vec<String> = Vec::new();
        for fault in own.0 {
            // One message a field.
            if !seen.contains(&fault.field) {
                seen.push(fault.field.clone());
                faults.push(FieldError::new(format!("{prefix}{}", fault.field), fault.message));
            }
        }
        PipelineEvent { event_id, user_id, event_type, payload, seq, occurred_at }
    }
}

fn required(faults: &mut FieldErrors, field: &str, text: &Text<'_>) -> String {
    let given = faults.optional(field, text);
    match text {
        Text::Absent => faults.add(field, "is required"),
        Text::Given(text) if text.is_empty() => faults.add(field, "must not be empty"),
        Text::Given(_) | Text::Wrong => {}
    }
    given.to_owned()
}

/// The seq in a payload: 0 when there is none. Only digits are a whole number: neither `1.0` nor `"1"` is.
fn seq(payload: &RawValue) -> Result<u64, ()> {
    let found = match serde_json::from_str(payload.get()) {
        Ok(PayloadSeq { seq }) => seq,
        // A name that is there twice: the last one counts, as in what is stored.
        Err(_) => serde_json::from_str::<HashMap<String, &RawValue>>(payload.get())
            .ok()
            .and_then(|members| members.get("seq").copied()),
    };
    let Some(seq) = found.map(RawValue::get) else { return Ok(0) };
    let is_number = seq.bytes().all(|byte| byte.is_ascii_digit());
    seq.parse().ok().filter(|seq| is_number && (1..=SEQ_MAX).contains(seq)).ok_or(())
}

/// What became of an event.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TakenEvent<'a> {
    /// Its id.
    event_id: &'a str,
    /// `accepted`, `duplicate`, `conflict` or `rate_limited`.
    status: &'static str,
}

/// What became of several.
#[derive(Serialize)]
struct TakenEvents<'a> {
    results: Vec<TakenEvent<'a>>,
}

/// Send events to the pipeline
///
/// One event, or `{"events": [...]}` with 1 to 1,000. Answers once those that were accepted are durable. If any event is
/// invalid, nothing of the call is taken.
#[utoipa::path(
    post, path = "/pipeline/events", operation_id = "postPipelineEvents", tag = "Pipeline", security(("token" = ["ingest"])),
    request_body(content = PipelineEventBody, description = "An event. Unknown fields are ignored."),
    responses(
        (status = 202, description = "What became of it; of several, `{\"results\": [...]}` in their order.", body = TakenEvent),
        (status = 400, description = "Something is wrong: `VALIDATION_ERROR`, with every field.", body = ErrorBody),
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
    let pipeline = pipeline(&context, &caller)?;
    let bytes = body::read(request, &context.app.config).await?;
    let (events, is_single) = read(&bytes, context.app.config.properties_bytes_max)?;
    let queries = &context.app.queries;
    let taken = pipeline.take(&events, is_single, bytes.len(), queries).await.map_err(Failure::of_pipeline)?;
    let wait = taken.iter().map(wait).max().flatten();
    let is_limited = taken.iter().all(|verdict| wait_of(verdict).is_some());
    let mut results: Vec<TakenEvent<'_>> = events
        .iter()
        .zip(&taken)
        .map(|(event, verdict)| TakenEvent { event_id: &event.event_id, status: verdict_name(verdict) })
        .collect();
    if is_limited {
        let message = "the user has sent as many events as are allowed in a second; send slower";
        return Err(Error::limited(message.to_owned(), wait.unwrap_or_default(), Vec::new()).into());
    }
    let mut response = match (is_single, results.pop()) {
        (true, Some(result)) => (StatusCode::ACCEPTED, Json(result)).into_response(),
        (_, last) => {
            results.extend(last);
            (StatusCode::ACCEPTED, Json(TakenEvents { results })).into_response()
        }
    };
    if let Some(wait) = wait {
        let seconds = wait.as_millis().div_ceil(1_000).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(1)));
    }
    Ok(response)
}

fn wait(verdict: &PipelineVerdict) -> Option<Duration> {
    wait_of(verdict)
}

const fn wait_of(verdict: &PipelineVerdict) -> Option<Duration> {
    match verdict {
        PipelineVerdict::RateLimited { wait } => Some(*wait),
        PipelineVerdict::Accepted | PipelineVerdict::Duplicate | PipelineVerdict::Conflict => None,
    }
}

const fn verdict_name(verdict: &PipelineVerdict) -> &'static str {
    match verdict {
        PipelineVerdict::Accepted => "accepted",
        PipelineVerdict::Duplicate => "duplicate",
        PipelineVerdict::Conflict => "conflict",
        PipelineVerdict::RateLimited { .. } => "rate_limited",
    }
}

/// The pipeline, for callers of its organization.
fn pipeline<'a>(context: &'a TransportContext, caller: &Caller) -> Result<&'a EventPipeline, Failure> {
    let Some(pipeline) = &context.app.event_pipeline else { return Err(Failure::no_such_path()) };
    caller.must_be(pipeline.org_id().as_str()).map_err(|refusal| refusal.error())?;
    Ok(pipeline)
}

/// Reads a body: one event, or several.
fn read(bytes: &[u8], properties_bytes_max: usize) -> Result<(Vec<PipelineEvent>, bool), Failure> {
    let not_an_object = |error: fields::NotAnObject| Failure::of_pipeline(error.invalid("body"));
    let several: PipelineEventsBody<'_> = fields::read_object(bytes).map_err(not_an_object)?;
    let mut faults = Vec::new();
    if several.events.is_none() {
        let body: PipelineEventBody<'_> = fields::read_object(bytes).map_err(not_an_object)?;
        let event = body.event("", properties_bytes_max, &mut faults);
        return if faults.is_empty() { Ok((vec![event], true)) } else { Err(invalid(faults)) };
    }
    let items = FirstItems::<PIPELINE_EVENTS_MAX>::read("events", several.events).map_err(Failure::of_pipeline)?;
    let mut events = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        match fields::read_object::<PipelineEventBody<'_>>(item.get().as_bytes()) {
            Ok(body) => {
                events.push(body.event(&format!("events[{at}]."), properties_bytes_max, &mut faults));
            }
            Err(error) => faults.push(FieldError::new(format!("events[{at}]"), error.message)),
        }
    }
    if faults.is_empty() { Ok((events, false)) } else { Err(invalid(faults)) }
}

fn invalid(faults: Vec<FieldError>) -> Failure {
    Failure::of_pipeline(Error::invalid(faults))
}

/// Where an event is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PipelineEventStatus {
    /// Its id.
    event_id: String,
    /// Its user.
    user_id: String,
    /// Its type.
    #[serde(rename = "type")]
    event_type: String,
    /// Its seq; null when it has none.
    seq: Option<u64>,
    /// `pending`, `buffered`, `in_flight`, `processed` or `failed`.
    status: &'static str,
    /// How often it was tried.
    attempts: u32,
    /// When it ended, in milliseconds since 1970; null before.
    processed_at: Option<u64>,
    /// Why it failed, or why the last attempt did; null when it did not.
    error: Option<String>,
    /// The seq that its user's events wait for, while it is buffered.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for_seq: Option<u64>,
}

impl From<EventStatus> for PipelineEventStatus {
    fn from(status: EventStatus) -> Self {
        let processed_at = match &status.state {
            EventState::Settled(settlement) => Some(settlement.processed_at_ms),
            _ => None,
        };
        let waiting_for_seq = match &status.state {
            EventState::Buffered { waiting_for_seq } => Some(*waiting_for_seq),
            _ => None,
        };
        let is_processed = matches!(&status.state, EventState::Settled(end) if end.outcome == FinalOutcome::Processed);
        Self {
            status: state_name(&status.state),
            event_id: status.event_id,
            user_id: status.user_id,
            event_type: status.event_type,
            seq: (status.seq > 0).then_some(status.seq),
            attempts: status.attempts,
            processed_at,
            error: (!status.error.is_empty() && !is_processed).then_some(status.error),
            waiting_for_seq,
        }
    }
}

/// Where an event of the pipeline is
#[utoipa::path(
    get, path = "/pipeline/events/{event_id}", operation_id = "getPipelineEvent", tag = "Pipeline", security(("token" = ["read"])),
    params(("event_id" = String, Path, description = "The event's id, percent-encoded.")),
    responses(
        (status = 200, description = "Where it is.", body = PipelineEventStatus),
        (status = 404, description = "The pipeline has no such event: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(super) async fn show(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    event_id: Result<Path<String>, PathRejection>,
) -> Result<Json<PipelineEventStatus>, Failure> {
    let pipeline = pipeline(&context, &caller)?;
    let Path(event_id) = event_id.map_err(|_| Error::invalid_field("eventId", "must be UTF-8, percent-encoded"))?;
    Ok(Json(pipeline.event(&event_id, &context.app.queries).await?.into()))
}

/// How the pipeline is getting on.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PipelineStatusBody {
    /// `up`, `away`, or `incomplete`: it lacks records of processed events, until it is rebuilt.
    redis: &'static str,
    /// `redis`, or `memory` while Redis is away.
    rate_limits: &'static str,
    /// Events that were read and have not ended.
    waiting: u64,
    /// Those of them that came before their turn.
    buffered: u64,
    /// Those of them that are being processed.
    in_flight: u64,
    /// Those of them that are tried again later.
    retrying: u64,
    /// Age of the oldest of them, in milliseconds.
    oldest_ms: u64,
    /// Events that were processed since the start of the service.
    processed: u64,
    /// Events that failed since then.
    failed: u64,
    /// Dead letters that are kept.
    dead_letters: u64,
}

impl From<PipelineStatus> for PipelineStatusBody {
    fn from(status: PipelineStatus) -> Self {
        let redis = match status {
            PipelineStatus { is_redis_up: false, .. } => "away",
            PipelineStatus { is_redis_incomplete: true, .. } => "incomplete",
            _ => "up",
        };
        Self {
            redis,
            rate_limits: if status.are_limits_in_memory { "memory" } else { "redis" },
            waiting: status.engine.waiting,
            buffered: status.engine.buffered,
            in_flight: status.engine.in_flight,
            retrying: status.engine.retrying,
            oldest_ms: status.engine.oldest_ms,
            processed: status.engine.processed,
            failed: status.engine.failed,
            dead_letters: status.engine.dead_letters,
        }
    }
}

/// How the pipeline is getting on
#[utoipa::path(
    get, path = "/pipeline/status", operation_id = "getPipelineStatus", tag = "Pipeline", security(("token" = ["read"])),
    responses((status = 200, description = "Its state.", body = PipelineStatusBody), AnyFailure),
)]
pub(super) async fn status(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
) -> Result<Json<PipelineStatusBody>, Failure> {
    Ok(Json(pipeline(&context, &caller)?.status().await?.into()))
}

/// What was rebuilt.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RebuiltBody {
    /// Records of events that the service has.
    records: u64,
    /// Those of them that Redis lacked.
    restored: u64,
    /// Users whose order was written anew.
    users: u64,
    /// Dead letters.
    dead_letters: u64,
}

/// Rebuild Redis
///
/// Writes what Redis has lost of the records of processed events. Meanwhile, nothing is processed.
#[utoipa::path(
    post, path = "/pipeline/rebuild", operation_id = "rebuildPipeline", tag = "Pipeline", security(("token" = ["admin"])),
    responses((status = 200, description = "What was rebuilt.", body = RebuiltBody), AnyFailure),
)]
pub(super) async fn rebuild(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
) -> Result<Json<RebuiltBody>, Failure> {
    let RestoreSummary { records, restored, users, dead_letters } = pipeline(&context, &caller)?.rebuild().await?;
    Ok(Json(RebuiltBody { records, restored, users, dead_letters }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seq_is_a_positive_whole_number() {
        let check = |payload: &str, expected: Result<u64, ()>| {
            let raw: &RawValue = serde_json::from_str(payload).expect("JSON");
            assert_eq!(seq(raw), expected, "{payload}");
        };
        check("{}", Ok(0));
        check(r#"{"seq":1}"#, Ok(1));
        check(r#"{"seq":9007199254740991}"#, Ok(SEQ_MAX));
        check(r#"{"seq":1,"seq":2}"#, Ok(2));
        check(r#"{"seq":1,"a":{},"seq":"x"}"#, Err(()));
        for wrong in ["9007199254740992", "0", "-1", "1.0", "1e3", "\"1\"", "true", "[1]", "null"] {
            check(&format!(r#"{{"seq":{wrong}}}"#), Err(()));
        }
    }
}
