//! Fuzzes the decoding of rows from a segment and from ClickHouse.

use crate::domain::{Event, EventDraft, OrgId, Timestamp};
use crate::event_row::{self, Rows};

/// Rows lie side by side up to the first that is none, and each of them is
/// also a row by itself.
pub(crate) fn run(bytes: &[u8]) {
    walk(bytes, |bytes| Rows::whole(bytes));
    walk(bytes, |bytes| Rows::payloads(bytes));
}

fn walk(bytes: &[u8], rows: fn(&[u8]) -> Rows<'_>) {
    let mut walk = rows(bytes);
    let mut begin = 0;
    while let Some(Ok(span)) = walk.next() {
        assert_eq!((span.id.start, span.id.end), (begin, span.payload.start));
        let end = walk.position();
        assert!(span.payload.end <= end && end <= bytes.len());
        let alone = rows(&bytes[begin..end]).next().expect("a row").expect("a row");
        assert_eq!(alone.id.len(), span.id.len());
        assert_eq!(alone.payload.len(), span.payload.len());
        assert_eq!(alone.occurred_at, span.occurred_at);
        // Cut anywhere, it is none.
        let cut = begin + (end - begin) / 2;
        assert!(rows(&bytes[begin..cut]).next().is_none_or(|row| row.is_err()));
        begin = end;
    }
    assert!(walk.next().is_none(), "nothing is read behind what is no row");
}

/// Rows of short and long texts.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let org = OrgId::default_org();
    let limits = crate::config::Config::default().event_limits();
    let now = Timestamp::from_millis(1_770_757_800_000);
    let long = "\u{e9}".repeat(120);
    let mut rows = Vec::new();
    let mut seeds = Vec::new();
    for user_id in ["", "user", &long] {
        let draft =
            EventDraft { event_id: "e", event_type: "click", user_id, occurred_at: Some(now), ..EventDraft::default() };
        let event = Event::parse(&org, draft, &limits, now).expect("a valid event");
        event_row::encode(&event, 7, &mut rows);
        seeds.push(rows.clone());
    }
    seeds
}
