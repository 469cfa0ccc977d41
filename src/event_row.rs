//! The bytes of an event, in the log and in the insert.
//!
//! A row is encoded once, in ClickHouse's RowBinary format, by the task that
//! received it. The same bytes are logged, hashed, and inserted. Columns are
//! ordered so that what says *which* event it is comes first, what says *what
//! happened* second, and what the service adds last: an id or a payload is a
//! slice of the row.

use std::ops::Range;

use crate::domain::{Event, Timestamp};

/// The columns of a row, in order. A segment's header repeats them, so that a
/// later version of the service can still insert it.
pub const COLUMNS: &str = "org_id,event_id,\
    type,campaign_id,creative_id,source,user_id,occurred_at,seq,properties,\
    schema_version,version";

/// The columns up to the end of the payload, for asking ClickHouse what it
/// has.
pub const PAYLOAD_COLUMNS: &str = "org_id,event_id,\
    type,campaign_id,creative_id,source,user_id,occurred_at,seq,properties";

/// Bytes of what follows the payload.
const TAIL_BYTES: usize = size_of::<u32>() + size_of::<u64>();

/// Where the parts of a row lie in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowSpan {
    /// Organization and event id.
    pub id: Range<usize>,
    /// What happened, from the type to the properties.
    pub payload: Range<usize>,
    /// When it happened.
    pub occurred_at: Timestamp,
}

/// The bytes are not a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a row at byte {at}")]
pub struct MalformedRow {
    /// Where the row begins.
    pub at: usize,
}

/// Appends an event's row. `arrival` is the event's place in the order of
/// arrival (see [`crate::clock`]); the table keeps the row with the highest
/// version, so the version counts down and the first arrival wins.
pub fn encode(event: &Event<'_>, arrival: u64, buffer: &mut Vec<u8>) -> RowSpan {
    let start = buffer.len();
    put_string(buffer, event.org_id().as_str());
    put_string(buffer, event.event_id());
    let id = start..buffer.len();
    for text in [event.event_type(), event.campaign_id(), event.creative_id(), event.source(), event.user_id()] {
        put_string(buffer, text);
    }
    buffer.extend_from_slice(&event.occurred_at().millis().to_le_bytes());
    buffer.extend_from_slice(&event.seq().to_le_bytes());
    put_string(buffer, event.properties());
    let payload = id.end..buffer.len();
    buffer.extend_from_slice(&event.schema_version().to_le_bytes());
    buffer.extend_from_slice(&(u64::MAX - arrival).to_le_bytes());
    RowSpan { id, payload, occurred_at: event.occurred_at() }
}

/// The event id within the bytes of [`RowSpan::id`].
pub fn event_id(id: &[u8]) -> Option<&str> {
    let mut cursor = Cursor { bytes: id, at: 0 };
    cursor.skip_strings(1)?;
    let length = cursor.varint()?;
    std::str::from_utf8(cursor.take(length)?).ok()
}

/// Appends a text, behind its length.
pub(crate) fn put_string(buffer: &mut Vec<u8>, text: &str) {
    let mut rest = text.len();
    while rest >= 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
        buffer.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    #[allow(clippy::cast_possible_truncation, reason = "less than 0x80")]
    buffer.push(rest as u8);
    buffer.extend_from_slice(text.as_bytes());
}

/// Walks over rows: whole ones, or ones that end with the payload.
pub struct Rows<'a> {
    bytes: &'a [u8],
    at: usize,
    tail_bytes: usize,
}

impl<'a> Rows<'a> {
    /// Rows of [`COLUMNS`].
    pub const fn whole(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, tail_bytes: TAIL_BYTES }
    }

    /// Rows of [`PAYLOAD_COLUMNS`].
    pub const fn payloads(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, tail_bytes: 0 }
    }

    /// Where the next row begins: all before are read.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Reads one row; none when the bytes end within it.
    fn read(&self) -> Option<(RowSpan, usize)> {
        let mut cursor = Cursor { bytes: self.bytes, at: self.at };
        cursor.skip_strings(2)?;
        let id = self.at..cursor.at;
        cursor.skip_strings(5)?;
        let occurred_at = Timestamp::from_millis(i64::from_le_bytes(cursor.take(8)?.try_into().ok()?));
        cursor.take(8)?;
        cursor.skip_strings(1)?;
        let payload = id.end..cursor.at;
        cursor.take(self.tail_bytes)?;
        Some((RowSpan { id, payload, occurred_at }, cursor.at))
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<RowSpan, MalformedRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let Some((span, end)) = self.read() else {
            let at = std::mem::replace(&mut self.at, self.bytes.len());
            return Some(Err(MalformedRow { at }));
        };
        self.at = end;
        Some(Ok(span))
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn skip_strings(&mut self, count: usize) -> Option<()> {
        for _ in 0..count {
            let bytes = self.varint()?;
            self.take(bytes)?;
        }
        Some(())
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.take(1)?[0];
            value |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{EventDraft, EventLimits, OrgId};

    const LIMITS: EventLimits = EventLimits {
        event_id_bytes_max: 1_000,
        type_bytes_max: 64,
        text_bytes_max: 1_000,
        properties_bytes_max: 1_000,
        retention_millis: i64::MAX,
        future_millis_max: i64::MAX,
    };

    proptest! {
        #[test]
        fn what_was_encoded_is_found_again(
            rows in prop::collection::vec(("[a-zé]{1,200}", "[a-z]{1,9}", "(x[a-zé ]{0,199})?", 0..i64::MAX, any::<u64>()), 1..20),
        ) {
            let org = OrgId::default_org();
            let mut buffer = Vec::new();
            let mut spans = Vec::new();
            for (id, event_type, text, millis, seq) in &rows {
                let draft = EventDraft {
                    event_id: id,
                    event_type,
                    campaign_id: text,
                    user_id: text,
                    occurred_at: Some(Timestamp::from_millis(*millis)),
                    seq: *seq,
                    ..EventDraft::default()
                };
                let event = Event::parse(&org, draft, &LIMITS, Timestamp::from_millis(0)).unwrap();
                spans.push(encode(&event, 42, &mut buffer));
            }
            let read: Result<Vec<_>, _> = Rows::whole(&buffer).collect();
            prop_assert_eq!(read.unwrap(), spans);
        }

        #[test]
        fn bytes_of_a_stranger_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Rows::whole(&bytes).count();
            let _ = Rows::payloads(&bytes).count();
        }
    }
}
