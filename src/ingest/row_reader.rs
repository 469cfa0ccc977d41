//! Decodes rows of the log into fields, for the readers of the log.

use crate::event_row::COLUMNS;

/// The fields of a row, as they lie in its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowFields<'a> {
    /// The organization.
    pub org_id: &'a str,
    /// See [`crate::domain::Event::event_id`].
    pub event_id: &'a str,
    /// See [`crate::domain::Event::event_type`].
    pub event_type: &'a str,
    /// See [`crate::domain::Event::campaign_id`].
    pub campaign_id: &'a str,
    /// See [`crate::domain::Event::creative_id`].
    pub creative_id: &'a str,
    /// See [`crate::domain::Event::source`].
    pub source: &'a str,
    /// See [`crate::domain::Event::user_id`].
    pub user_id: &'a str,
    /// When it happened, in milliseconds since 1970.
    pub occurred_at_ms: i64,
    /// See [`crate::domain::Event::seq`].
    pub seq: u64,
    /// See [`crate::domain::Event::properties`].
    pub properties: &'a str,
    /// Its place in the order of arrival, in microseconds since 1970; see [`crate::clock`].
    pub arrival: u64,
}

/// Reads rows of these columns; none of columns that another version wrote.
pub fn read_rows<'a>(columns: &str, bytes: &'a [u8]) -> Option<RowReader<'a>> {
    (columns == COLUMNS).then_some(RowReader { rest: bytes })
}

/// Reads rows one by one. Ends where the bytes are none.
pub struct RowReader<'a> {
    rest: &'a [u8],
}

impl<'a> RowReader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn text(&mut self) -> Option<&'a str> {
        let mut length = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = *self.take(1)?.first()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return str::from_utf8(self.take(length)?).ok();
            }
        }
        None
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn row(&mut self) -> Option<RowFields<'a>> {
        let mut row = RowFields {
            org_id: self.text()?,
            event_id: self.text()?,
            event_type: self.text()?,
            campaign_id: self.text()?,
            creative_id: self.text()?,
            source: self.text()?,
            user_id: self.text()?,
            occurred_at_ms: self.number()?.cast_signed(),
            seq: self.number()?,
            properties: self.text()?,
            arrival: 0,
        };
        self.take(size_of::<u32>())?;
        // The version counts down as arrival counts up.
        row.arrival = u64::MAX - self.number()?;
        Some(row)
    }
}

impl<'a> Iterator for RowReader<'a> {
    type Item = RowFields<'a>;

    fn next(&mut self) -> Option<RowFields<'a>> {
        self.row()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Event, EventDraft, OrgId, PropertiesDraft, Timestamp};
    use crate::event_row as row;

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_encoded(
            rows in prop::collection::vec(("[a-zé]{1,60}", "(x[a-zé ]{0,99})?", 0..i64::MAX / 2, any::<u64>()), 1..20),
        ) {
            let (org, limits) = (OrgId::default_org(), crate::config::Config::default().event_limits());
            let limits = crate::domain::EventLimits { retention_millis: i64::MAX, future_millis_max: i64::MAX / 2, ..limits };
            let mut buffer = Vec::new();
            for (id, text, millis, seq) in &rows {
                let draft = EventDraft {
                    event_id: id,
                    event_type: "click",
                    campaign_id: text,
                    creative_id: "c",
                    source: "s",
                    user_id: text,
                    occurred_at: Some(Timestamp::from_millis(*millis)),
                    seq: *seq,
                    properties: PropertiesDraft::Canonical(Cow::Borrowed(r#"{"a":1}"#)),
                    ..EventDraft::default()
                };
                let event = Event::parse(&org, draft, &limits, Timestamp::from_millis(0)).unwrap();
                row::encode(&event, 42, &mut buffer);
            }
            let read: Vec<RowFields<'_>> = read_rows(COLUMNS, &buffer).unwrap().collect();
            let expected = rows.iter().map(|(id, text, millis, seq)| RowFields {
                org_id: "default",
                event_id: id,
                event_type: "click",
                campaign_id: text,
                creative_id: "c",
                source: "s",
                user_id: text,
                occurred_at_ms: *millis,
                seq: *seq,
                properties: r#"{"a":1}"#,
                arrival: 42,
            });
            prop_assert_eq!(read, expected.collect::<Vec<_>>());
        }

        #[test]
        fn bytes_of_a_stranger_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_rows(COLUMNS, &bytes).map(Iterator::count);
        }
    }

    #[test]
    fn rows_of_another_version_are_not_read() {
        assert!(read_rows("org_id", b"").is_none());
    }
}
