//! Batches of events, from a message to the rows of the log.

use prost::Message;

use crate::domain::{Event, EventDraft, OrgId, Verdict};
use crate::event_row::{self, Rows};
use crate::transport::fuzzing::{NOW, limits};
use crate::transport::grpc::convert;
use crate::transport::proto::codec;
use crate::transport::proto::{self, IngestBatchRequest, IngestRequest};

/// What can be read is judged event by event, an accepted one is found again
/// in its row, and a valid event is accepted beside whatever else came.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(request) = codec::read::<IngestRequest>(bytes) {
        let again = codec::read::<IngestRequest>(&request.encode_to_vec());
        assert_eq!(again.ok().as_ref(), Some(&request));
        let _ = convert::durability(request.durability);
        judge(request.events);
    }
    let Ok(request) = codec::read::<IngestBatchRequest>(bytes) else { return };
    let count = request.events.len();
    judge(request.events);
    // Messages that are joined are one message of all their events.
    let mut beside = bytes.to_vec();
    let good = IngestBatchRequest { events: vec![valid("good")], durability: 0, ..Default::default() };
    beside.extend_from_slice(&good.encode_to_vec());
    let verdicts = judge(codec::read::<IngestBatchRequest>(beside.as_slice()).expect("both were read").events);
    assert_eq!(verdicts.len(), count + 1);
    assert_eq!(verdicts.last(), Some(&Verdict::Accepted));
}

fn judge(events: Vec<proto::Event>) -> Vec<Verdict> {
    let (org, limits) = (OrgId::default_org(), limits());
    let bytes = convert::bytes(&events);
    let drafts: Vec<EventDraft<'_>> = convert::drafts(&events, limits.properties_bytes_max).collect();
    assert!(bytes >= events.len());
    let mut rows = Vec::new();
    let mut spans = Vec::new();
    let judge = |draft| match Event::parse(&org, draft, &limits, NOW) {
        Ok(event) => {
            spans.push(event_row::encode(&event, 7, &mut rows));
            Verdict::Accepted
        }
        Err(rejection) => {
            assert!(!rejection.errors.is_empty());
            Verdict::Rejected(rejection)
        }
    };
    let verdicts: Vec<Verdict> = drafts.into_iter().map(judge).collect();
    let read: Result<Vec<_>, _> = Rows::whole(&rows).collect();
    assert_eq!(read, Ok(spans));
    let rejected = verdicts.iter().filter(|verdict| **verdict != Verdict::Accepted).count();
    let results = convert::results(events.into_iter().map(|event| event.event_id).collect(), verdicts.clone());
    assert_eq!(results.results.len(), rejected);
    verdicts
}

fn valid(event_id: &str) -> proto::Event {
    proto::Event {
        event_id: event_id.to_owned(),
        r#type: "click".to_owned(),
        campaign_id: "camp_1".to_owned(),
        occurred_at: Some(convert::time(NOW)),
        ..proto::Event::default()
    }
}

/// Batches, good and bad.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let full = proto::Event {
        creative_id: "creative".to_owned(),
        source: "web".to_owned(),
        user_id: "\u{e9}".to_owned(),
        seq: u64::MAX,
        properties: r#"{"a":[1,{"b":null}]}"#.to_owned(),
        ..valid("full")
    };
    let bad = proto::Event {
        occurred_at: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
        properties: "{".to_owned(),
        ..valid("\u{7}")
    };
    let events = vec![full, bad, valid("e"), proto::Event::default()];
    vec![
        IngestRequest { sequence: 3, events: events.clone(), durability: 2 }.encode_to_vec(),
        IngestBatchRequest { events, durability: 9, ..Default::default() }.encode_to_vec(),
        IngestBatchRequest { events: vec![proto::Event::default(); 500], durability: 0, ..Default::default() }
            .encode_to_vec(),
    ]
}
