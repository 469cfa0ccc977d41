//! Converts between types of the protocol and of the domain.

use prost::Message as _;

use crate::domain::{
    CampaignBucket, CampaignCount, DayCount, Error, EventDraft, FieldError, Granularity, Limit, PropertiesDraft,
    RejectionCode, StoredEvent, Timestamp, UserCount, Verdict, VerdictCounts, Window,
};
use crate::ingest::outcome::Outcome;
use crate::ingest::pipeline::Durability;
use crate::log::{Segment, SegmentState};
use crate::transport::proto;
use crate::transport::{properties, rfc3339};

/// What an event costs in memory beside its texts, in bytes.
const EVENT_BYTES: usize = 64;
/// What is said of a time that is none.
const TIME_EXPECTED: &str = "must lie in the years 0000 to 9999, with 0 to 999,999,999 nanos";

/// Drafts of a batch's events, made one by one as they are taken.
pub(super) fn drafts(
    events: &[proto::Event],
    properties_bytes_max: usize,
) -> impl ExactSizeIterator<Item = EventDraft<'_>> {
    events.iter().map(move |event| draft(event, properties_bytes_max))
}

/// About how many bytes a batch's events hold.
pub(super) fn bytes(events: &[proto::Event]) -> usize {
    events.iter().map(size).sum()
}

const fn size(event: &proto::Event) -> usize {
    EVENT_BYTES
        + event.event_id.len()
        + event.r#type.len()
        + event.campaign_id.len()
        + event.creative_id.len()
        + event.source.len()
        + event.user_id.len()
        + event.properties.len()
}

fn draft(event: &proto::Event, properties_bytes_max: usize) -> EventDraft<'_> {
    let mut unreadable = Vec::new();
    let occurred_at = event.occurred_at.as_ref().and_then(|time| {
        let read = rfc3339::from_parts(time.seconds, time.nanos);
        if read.is_none() {
            unreadable.push(FieldError::new("occurred_at", TIME_EXPECTED));
        }
        read
    });
    let properties = properties::read("properties", &event.properties, properties_bytes_max).unwrap_or_else(|errors| {
        unreadable.extend(errors);
        PropertiesDraft::None
    });
    EventDraft {
        event_id: &event.event_id,
        event_type: &event.r#type,
        campaign_id: &event.campaign_id,
        creative_id: &event.creative_id,
        source: &event.source,
        user_id: &event.user_id,
        occurred_at,
        seq: event.seq,
        properties,
        unreadable,
    }
}

/// The requested durability.
pub(super) fn durability(value: i32) -> Result<Durability, Error> {
    match proto::Durability::try_from(value) {
        Ok(proto::Durability::Unspecified | proto::Durability::Logged) => Ok(Durability::Logged),
        Ok(proto::Durability::Stored) => Ok(Durability::Stored),
        Err(_) => Err(unknown("durability")),
    }
}

/// A value that the protocol does not have.
pub(super) fn unknown(field: &str) -> Error {
    Error::invalid_field(field, "is not a value of this version")
}

pub(super) const fn counts(counts: VerdictCounts) -> proto::VerdictCounts {
    let VerdictCounts { accepted, duplicate, conflict, rejected, undecided } = counts;
    proto::VerdictCounts { accepted, duplicate, conflict, rejected, undecided }
}

/// Most bytes of an answer's results that come with their details. What is
/// left of each of the others takes 12 bytes at most, and there are at most
/// [`crate::config::BATCH_EVENTS_BOUND`] of them: the whole stays below the
/// 4 MiB that gRPC clients accept by default.
const DETAILED_BYTES_MAX: usize = 2 << 20;

/// What an answer says of events that were not accepted.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// One for each of them, by index.
    pub(super) results: Vec<proto::EventResult>,
    /// How many of them, at the end, are without id and errors.
    pub(super) without_details: u32,
}

/// One result for each event that was not accepted.
pub(super) fn results(event_ids: Vec<String>, verdicts: Vec<Verdict>) -> Results {
    let mut all = Results::default();
    let mut bytes_left = Some(DETAILED_BYTES_MAX);
    for (index, (event_id, made)) in (0_u32..).zip(event_ids.into_iter().zip(verdicts)) {
        if made == Verdict::Accepted {
            continue;
        }
        let (code, errors) = rejection(&made);
        let (verdict, code) = (verdict(&made).into(), code.into());
        let mut result = proto::EventResult { index, event_id, verdict, code, errors };
        // From the first that does not fit on, so that those without are the last.
        bytes_left = bytes_left.and_then(|left| left.checked_sub(result.encoded_len() + RESULT_HEAD_BYTES));
        if bytes_left.is_none() {
            (result.event_id, result.errors) = (String::new(), Vec::new());
            all.without_details += 1;
        }
        all.results.push(result);
    }
    all
}

/// Most bytes of a result's tag and length in its list.
const RESULT_HEAD_BYTES: usize = 6;

pub(super) const fn verdict(verdict: &Verdict) -> proto::Verdict {
    match verdict {
        Verdict::Accepted => proto::Verdict::Accepted,
        Verdict::Duplicate => proto::Verdict::Duplicate,
        Verdict::Conflict => proto::Verdict::Conflict,
        Verdict::Rejected(_) => proto::Verdict::Rejected,
        Verdict::Undecided => proto::Verdict::Undecided,
    }
}

fn rejection(verdict: &Verdict) -> (proto::RejectionCode, Vec<proto::FieldError>) {
    let Verdict::Rejected(rejection) = verdict else {
        return (proto::RejectionCode::Unspecified, Vec::new());
    };
    let code = match rejection.code {
        RejectionCode::Invalid => proto::RejectionCode::Invalid,
        RejectionCode::TooOld => proto::RejectionCode::TooOld,
        RejectionCode::InFuture => proto::RejectionCode::InFuture,
        RejectionCode::Schema => proto::RejectionCode::Schema,
        RejectionCode::UnknownType => proto::RejectionCode::UnknownType,
    };
    let error = |error: &FieldError| proto::FieldError { field: error.field.clone(), message: error.message.clone() };
    (code, rejection.errors.iter().map(error).collect())
}

/// One outcome, for a watcher.
pub(super) fn outcome(outcome: &Outcome) -> proto::Outcome {
    let (code, errors) = rejection(&outcome.verdict);
    proto::Outcome {
        at: Some(time(outcome.at)),
        event_id: outcome.event_id.clone(),
        r#type: outcome.event_type.clone(),
        campaign_id: outcome.campaign_id.clone(),
        verdict: verdict(&outcome.verdict).into(),
        code: code.into(),
        errors,
    }
}

pub(super) fn time(moment: Timestamp) -> prost_types::Timestamp {
    time_of_micros(moment.millis().saturating_mul(1_000))
}

fn time_of_micros(micros: i64) -> prost_types::Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// An optional time. Adds errors to `errors`.
pub(super) fn optional_time(
    field: &str,
    time: Option<&prost_types::Timestamp>,
    errors: &mut Vec<FieldError>,
) -> Option<Timestamp> {
    let time = time?;
    let read = rfc3339::from_parts(time.seconds, time.nanos);
    if read.is_none() {
        errors.push(FieldError::new(field, TIME_EXPECTED));
    }
    read
}

/// A required window. Adds errors to `errors`.
pub(super) fn window(window: Option<&proto::Window>, errors: &mut Vec<FieldError>) -> Option<Window> {
    let Some(window) = window else {
        errors.push(FieldError::new("window", "is required"));
        return None;
    };
    let mut end = |field: &str, time: Option<&prost_types::Timestamp>| {
        if time.is_none() {
            errors.push(FieldError::new(field, "is required"));
        }
        optional_time(field, time, errors)
    };
    let from = end("window.from", window.from.as_ref());
    let to = end("window.to", window.to.as_ref());
    match Window::new(from?, to?) {
        Ok(window) => Some(window),
        Err(_) => {
            errors.push(FieldError::new("window.from", "must be before window.to"));
            None
        }
    }
}

pub(super) fn window_answered(window: Window) -> Option<proto::Window> {
    Some(proto::Window { from: Some(time(window.from())), to: Some(time(window.to())) })
}

pub(super) fn granularity(value: i32) -> Option<Granularity> {
    match proto::Granularity::try_from(value).ok()? {
        proto::Granularity::Unspecified | proto::Granularity::Minute => Some(Granularity::Minute),
        proto::Granularity::Hour => Some(Granularity::Hour),
        proto::Granularity::Day => Some(Granularity::Day),
    }
}

pub(super) const fn granularity_answered(granularity: Granularity) -> proto::Granularity {
    match granularity {
        Granularity::Minute => proto::Granularity::Minute,
        Granularity::Hour => proto::Granularity::Hour,
        Granularity::Day => proto::Granularity::Day,
    }
}

/// A limit of 1 to `max`; 0 is `default`.
pub(super) fn limit(field: &str, value: u32, max: u32, default: Limit, errors: &mut Vec<FieldError>) -> Option<Limit> {
    if value == 0 {
        return Some(default);
    }
    Limit::new(field, value, max).map_err(|error| errors.extend(error.fields)).ok()
}

pub(super) fn freshness(watermark: Timestamp, cached: bool) -> Option<proto::Freshness> {
    Some(proto::Freshness { watermark: Some(time(watermark)), cached })
}

pub(super) fn bucket(bucket: &CampaignBucket) -> proto::CampaignBucket {
    let CampaignBucket { start, impressions, clicks } = *bucket;
    proto::CampaignBucket { start: Some(time(start)), impressions, clicks }
}

pub(super) fn user_count(count: &UserCount) -> proto::UserCount {
    proto::UserCount { user_id: count.user_id.clone(), events: count.events }
}

pub(super) fn campaign_count(count: &CampaignCount) -> proto::CampaignCount {
    let CampaignCount { campaign_id, events, impressions, clicks } = count.clone();
    proto::CampaignCount { campaign_id, events, impressions, clicks }
}

pub(super) fn day_count(count: &DayCount) -> proto::DayCount {
    proto::DayCount { date: rfc3339::write_date(count.day), users: count.users }
}

pub(super) fn stored_event(stored: StoredEvent) -> proto::StoredEvent {
    let event = proto::Event {
        event_id: stored.event_id,
        r#type: stored.event_type,
        campaign_id: stored.campaign_id,
        creative_id: stored.creative_id,
        source: stored.source,
        user_id: stored.user_id,
        occurred_at: Some(time(stored.occurred_at)),
        seq: stored.seq,
        properties: stored.properties,
    };
    proto::StoredEvent {
        event: Some(event),
        received_at: Some(time_of_micros(stored.received_at_micros)),
        schema_version: stored.schema_version,
    }
}

pub(super) fn segment(segment: Segment) -> proto::Segment {
    let state = match segment.state {
        SegmentState::Open => proto::SegmentState::Open,
        // What is stored is not listed.
        SegmentState::Sealed | SegmentState::Inserting | SegmentState::Stored => proto::SegmentState::Sealed,
        SegmentState::Parked => proto::SegmentState::Parked,
    };
    proto::Segment {
        segment_id: segment.id.to_string(),
        state: state.into(),
        rows: segment.rows,
        bytes: segment.bytes,
        opened_at: Some(time_of_micros(i64::try_from(segment.opened_at_micros).unwrap_or(i64::MAX))),
        last_error: segment.last_error.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rejection;

    fn rejected(errors: usize, bytes: usize) -> Verdict {
        let errors = (0..errors).map(|n| FieldError::new(format!("field{n}"), "x".repeat(bytes))).collect();
        Verdict::Rejected(Rejection { code: RejectionCode::Invalid, errors })
    }

    /// Bytes that gRPC clients accept by default.
    const ACCEPTED_BYTES_MAX: usize = 4 << 20;

    #[test]
    fn an_answer_fits_whatever_is_rejected_and_names_every_event() {
        for (events, verdict) in [
            (10_000, rejected(8, 60)),
            (crate::config::BATCH_EVENTS_BOUND, rejected(1, 60)),
            (crate::config::BATCH_EVENTS_BOUND, Verdict::Conflict),
            (3, rejected(1, 3 << 20)),
        ] {
            let event_ids = vec!["x".repeat(128); events];
            let Results { results, without_details } = results(event_ids, vec![verdict; events]);
            assert_eq!(results.len(), events);
            assert!(without_details > 0);
            let is_detailed = |result: &proto::EventResult| !result.event_id.is_empty();
            let detailed = events - without_details as usize;
            assert!(results[..detailed].iter().all(is_detailed) && !results[detailed..].iter().any(is_detailed));
            assert!(results.iter().zip(0..).all(|(result, index)| result.index == index && result.verdict != 0));
            let answer =
                proto::IngestResponse { results, results_without_details: without_details, ..Default::default() };
            assert!(answer.encoded_len() < ACCEPTED_BYTES_MAX, "{}", answer.encoded_len());
        }
        let few = results(vec!["e".to_owned(); 100], vec![rejected(8, 60); 100]);
        assert_eq!((few.results.len(), few.without_details), (100, 0));
        assert_eq!(few.results[99].errors.len(), 8);
    }
}
