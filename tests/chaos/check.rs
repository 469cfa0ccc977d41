//! Was the promise kept? What is stored, and every verdict that was ever
//! given, against what the producers know.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::event::{Draft, Payload};
use crate::oracle::{Attempt, ReportedVerdict};
use crate::service::TestService;

/// An event as it is stored.
pub(crate) struct Stored {
    pub(crate) payload: Payload,
    arrival: u64,
}

/// What is stored, by id.
pub(crate) type StoredById = BTreeMap<String, Stored>;

/// Reads the raw table. Rows that it should not have are told.
pub(crate) async fn read_stored(service: &TestService, faults: &mut Vec<String>) -> Result<StoredById> {
    let rows = service
        .sql(
            "SELECT event_id, type, campaign_id, creative_id, source, user_id, toUnixTimestamp64Milli(occurred_at), \
             seq, properties, arrival, org_id FROM events",
        )
        .await?;
    let raw = rows.len();
    let mut stored = StoredById::new();
    for row in rows {
        let text = |column: usize| row[column].as_str().unwrap_or_default().to_owned();
        let payload = Payload {
            event_type: text(1),
            campaign_id: text(2),
            creative_id: text(3),
            source: text(4),
            user_id: text(5),
            occurred_at: Some(number(&row[6]).context("a time")? as i64),
            seq: number(&row[7]).context("a seq")?,
            properties: text(8),
        };
        if text(10) != "default" {
            faults.push(format!("a row of another organization: {row}"));
        }
        let arrival = number(&row[9]).context("an arrival")?;
        if stored.insert(text(0), Stored { payload, arrival }).is_some() {
            faults.push(format!("stored twice: {}", text(0)));
        }
    }
    let once = service.sql("SELECT count() FROM events FINAL").await?;
    let once = once.first().and_then(|row| number(&row[0])).context("a count")?;
    if once != raw as u64 {
        faults.push(format!("{raw} raw rows are {once} after FINAL"));
    }
    Ok(stored)
}

/// A number, which JSON may have as text.
pub(crate) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_i64().map(|n| n as u64)).or_else(|| value.as_str()?.parse().ok())
}

/// Checks every verdict, and every stored event. Of events that were lost with a damaged frame, what was said after that.
pub(crate) fn check_verdicts(
    drafts: &[Draft],
    attempts: &[Attempt],
    lost: &HashMap<String, u64>,
    stored: &StoredById,
    faults: &mut Vec<String>,
) {
    let mut by_id: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        by_id.entry(drafts[attempt.draft].id.as_str()).or_default().push(attempt);
    }
    for (id, event) in stored {
        let none = Vec::new();
        check_is_known(drafts, id, event, by_id.get(id.as_str()).unwrap_or(&none), faults);
    }
    let is_valid =
        |attempt: &&&Attempt| lost.get(&drafts[attempt.draft].id).is_none_or(|lost_at| *lost_at < attempt.begun);
    for (id, attempts) in &by_id {
        let attempts: Vec<&Attempt> = attempts.iter().filter(is_valid).copied().collect();
        let event = stored.get(*id);
        for attempt in &attempts {
            check_told(&drafts[attempt.draft], attempt, event, faults);
        }
        check_accepted_once(id, &attempts, faults);
    }
    let valid: Vec<&Attempt> = attempts.iter().filter(|attempt| is_valid(&attempt)).collect();
    check_order(drafts, &valid, stored, faults);
}

/// Somebody sent this, and if nobody was told that it was accepted, then
/// because an answer was lost.
fn check_is_known(drafts: &[Draft], id: &str, event: &Stored, attempts: &[&Attempt], faults: &mut Vec<String>) {
    let of_event = |attempt: &&&Attempt| {
        let draft = &drafts[attempt.draft];
        draft.flaw.is_none() && draft.payload == event.payload
    };
    let mut told = attempts.iter().filter(of_event).map(|attempt| attempt.told).peekable();
    if told.peek().is_none() {
        faults.push(format!("stored, but never sent: {id} {:?}", event.payload));
    } else if !told.any(|told| matches!(told, None | Some(ReportedVerdict::Accepted))) {
        faults.push(format!("stored, but never accepted, and no answer was lost: {id}"));
    }
}

/// Nobody was told what is not so.
fn check_told(draft: &Draft, attempt: &Attempt, event: Option<&Stored>, faults: &mut Vec<String>) {
    let Some(told) = attempt.told else { return };
    let is_stored_so = event.map(|event| event.payload == draft.payload);
    let is_true = match (told, draft.flaw) {
        (ReportedVerdict::Rejected(flaw), expected) => Some(flaw) == expected,
        (_, Some(_)) => false,
        (ReportedVerdict::Accepted | ReportedVerdict::Duplicate, None) => is_stored_so == Some(true),
        (ReportedVerdict::Conflict, None) => is_stored_so == Some(false),
        (ReportedVerdict::Undecided, None) => true,
    };
    if !is_true {
        let stored = event.map(|event| &event.payload);
        faults.push(format!("told {told:?} of {draft:?}; stored is {stored:?} ({attempt:?})"));
    }
}

/// An id is accepted once, and never after anybody has been told that it is
/// there.
fn check_accepted_once(id: &str, attempts: &[&Attempt], faults: &mut Vec<String>) {
    let accepted: Vec<_> = attempts.iter().filter(|attempt| attempt.told == Some(ReportedVerdict::Accepted)).collect();
    if accepted.len() > 1 {
        faults.push(format!("accepted {} times: {id} {accepted:?}", accepted.len()));
    }
    let says_there = |attempt: &&&Attempt| {
        matches!(attempt.told, Some(ReportedVerdict::Accepted | ReportedVerdict::Duplicate | ReportedVerdict::Conflict))
    };
    let first_said = attempts.iter().filter(says_there).map(|attempt| attempt.ended).min();
    for attempt in accepted {
        if first_said.is_some_and(|said| said < attempt.begun) {
            faults.push(format!("accepted although it was there before: {id} {attempts:?}"));
        }
    }
}

/// What one producer was told is accepted arrived in the order of sending.
fn check_order(drafts: &[Draft], attempts: &[&Attempt], stored: &StoredById, faults: &mut Vec<String>) {
    let mut last_of: HashMap<u64, (u64, &str)> = HashMap::new();
    for attempt in attempts.iter().filter(|attempt| attempt.told == Some(ReportedVerdict::Accepted)) {
        let id = drafts[attempt.draft].id.as_str();
        let Some(event) = stored.get(id) else { continue };
        let before = last_of.insert(attempt.session, (event.arrival, id));
        if let Some((arrival, first)) = before.filter(|(arrival, _)| *arrival >= event.arrival) {
            faults.push(format!("{id} was sent after {first}, but arrived {} µs earlier", arrival - event.arrival));
        }
    }
}

/// Every event has its own place in the order of arrival. (Not when a run
/// began at a time that was there before: a run does not know the arrivals of
/// the others.)
pub(crate) fn check_places(stored: &StoredById, faults: &mut Vec<String>) {
    let mut places: HashMap<u64, &str> = HashMap::new();
    for (id, event) in stored {
        if let Some(other) = places.insert(event.arrival, id) {
            faults.push(format!("{id} and {other} have the same place in the order of arrival"));
        }
    }
}
