//! Inserts repairs exactly once.
//!
//! A repair is one insert of one block into one rollup's table. Its token is derived from the change, so
//! that a repeated insert has no effect, whoever sends it. The same change may be due again on another
//! day, so the token includes the number of finished repairs of this hour and rollup, and later repairs
//! have other tokens. The token of an undo is derived from the token of the undone repair.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::AuditStore;
use crate::clickhouse::error::insert_error;
use crate::clickhouse::query_store::seconds;
use crate::clickhouse::store::INSERT_SETTINGS;
use crate::domain::{Difference, MILLIS_PER_DAY, MILLIS_PER_HOUR, Rollup, Timestamp};
use crate::event_row::put_string;
use crate::event_store::StoreError;

/// The nearest number that fits into 32 bits.
fn narrow(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

/// Hours in a day, and columns in a row of `user_days`.
const HOURS: u32 = 24;

/// A repair: the changes of a rollup in an hour of one organization.
#[derive(Clone, Copy, Debug)]
pub struct Repair<'a> {
    /// The organization's id.
    pub org_id: &'a str,
    /// The start of the hour.
    pub hour: Timestamp,
    /// The rollup.
    pub rollup: Rollup,
    /// The differing keys.
    pub differences: &'a [Difference],
    /// Its kind.
    pub kind: RepairKind<'a>,
}

/// The kind of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepairKind<'a> {
    /// To make a rollup equal to the events.
    Difference {
        /// How many repairs of this hour and rollup were over before the
        /// differences were read.
        over_before: u64,
    },
    /// To take another repair back.
    Undo {
        /// The other's id.
        repair_id: &'a str,
    },
}

impl Repair<'_> {
    /// The insert's token, and the repair's id.
    pub fn token(&self) -> String {
        let mut hash = Sha256::new();
        // Each text ends where the next number begins: lengths go first.
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        text(self.rollup.as_str());
        text(self.org_id);
        match self.kind {
            RepairKind::Difference { over_before } => text(&format!("{} {over_before}", self.hour.millis())),
            RepairKind::Undo { repair_id } => text(&format!("{} undo {repair_id}", self.hour.millis())),
        }
        for Difference { key, expected, actual, .. } in self.differences {
            text(&key.campaign_id);
            text(&key.event_type);
            text(&key.user_id);
            text(&format!("{} {} {expected} {actual}", key.bucket.millis(), key.user_key));
        }
        hash.finalize().iter().take(16).fold("repair-".to_owned(), |token, byte| format!("{token}{byte:02x}"))
    }

    /// The table's columns.
    fn columns(&self) -> String {
        match self.rollup {
            Rollup::CampaignMinutes => "org_id, campaign_id, minute, type, events".to_owned(),
            Rollup::TypeHours => "org_id, hour, type, events".to_owned(),
            Rollup::UserDays => (0..HOURS)
                .fold("org_id, day, user_key, user_id".to_owned(), |columns, hour| format!("{columns}, c{hour:02}")),
            Rollup::UserMinutes => "org_id, minute, user_id, events".to_owned(),
        }
    }

    /// The rows, in RowBinary. A count that is taken away is the complement of
    /// the number, in the width of the column.
    fn rows(&self) -> Vec<u8> {
        let mut rows = Vec::with_capacity(self.differences.len() * 64);
        for difference in self.differences {
            self.put_row(difference, &mut rows);
        }
        rows
    }

    /// The change of a key's count. A rest that exceeds the rollup's column is left for the next
    /// repair.
    pub(super) fn change(&self, difference: &Difference) -> i64 {
        let missing = difference.missing();
        match self.rollup {
            Rollup::CampaignMinutes | Rollup::TypeHours => missing,
            Rollup::UserDays | Rollup::UserMinutes => i64::from(narrow(missing)),
        }
    }

    fn put_row(&self, difference: &Difference, rows: &mut Vec<u8>) {
        let key = &difference.key;
        let missing = difference.missing();
        let narrow = narrow(missing);
        put_string(rows, self.org_id);
        match self.rollup {
            Rollup::CampaignMinutes => {
                put_string(rows, &key.campaign_id);
                rows.extend_from_slice(&seconds(key.bucket).to_le_bytes());
                put_string(rows, &key.event_type);
                rows.extend_from_slice(&missing.to_le_bytes());
            }
            Rollup::TypeHours => {
                rows.extend_from_slice(&seconds(key.bucket).to_le_bytes());
                put_string(rows, &key.event_type);
                rows.extend_from_slice(&missing.to_le_bytes());
            }
            Rollup::UserDays => {
                let day = u16::try_from(self.hour.millis().div_euclid(MILLIS_PER_DAY)).unwrap_or_default();
                rows.extend_from_slice(&day.to_le_bytes());
                rows.extend_from_slice(&key.user_key.to_le_bytes());
                put_string(rows, &key.user_id);
                // An event of an hour counts in its column and in all before.
                let of_day = self.hour.millis().rem_euclid(MILLIS_PER_DAY) / MILLIS_PER_HOUR;
                for hour in 0..i64::from(HOURS) {
                    let count = if hour <= of_day { narrow } else { 0 };
                    rows.extend_from_slice(&count.to_le_bytes());
                }
            }
            Rollup::UserMinutes => {
                rows.extend_from_slice(&seconds(key.bucket).to_le_bytes());
                put_string(rows, &key.user_id);
                rows.extend_from_slice(&narrow.to_le_bytes());
            }
        }
    }

    /// Counts added, and counts removed.
    pub fn added_and_taken(&self) -> (u64, u64) {
        self.differences.iter().fold((0, 0), |(added, taken), difference| {
            let change = self.change(difference);
            let size = change.unsigned_abs();
            if change > 0 { (added + size, taken) } else { (added, taken + size) }
        })
    }
}

impl AuditStore {
    /// Inserts a repair. After an error it may or may not be stored.
    pub async fn apply(&self, repair: Repair<'_>) -> Result<(), StoreError> {
        let statement = format!("INSERT INTO {} ({}) FORMAT RowBinary", repair.rollup.as_str(), repair.columns());
        let mut insert = self.client.insert_formatted_with(statement);
        for (name, value) in INSERT_SETTINGS {
            insert = insert.with_setting(name, value);
        }
        insert = insert.with_setting("insert_deduplication_token", repair.token());
        insert.send(Bytes::from(repair.rows())).await.map_err(|error| insert_error(&error))?;
        insert.end().await.map_err(|error| insert_error(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RollupKey;

    fn difference(user: &str, expected: i64, actual: i64) -> Difference {
        let key = RollupKey { user_id: user.to_owned(), user_key: 7, ..RollupKey::default() };
        Difference { key, expected, actual, counted_twice: 0 }
    }

    fn repair(rollup: Rollup, differences: &[Difference]) -> Repair<'_> {
        let hour = Timestamp::from_millis(MILLIS_PER_DAY + 2 * MILLIS_PER_HOUR);
        Repair { org_id: "default", hour, rollup, differences, kind: RepairKind::Difference { over_before: 0 } }
    }

    #[test]
    fn a_token_names_one_change_at_one_time() {
        let differences = [difference("ann", 5, 3), difference("ben", 1, 2)];
        let token = repair(Rollup::UserMinutes, &differences).token();
        assert_eq!(token, repair(Rollup::UserMinutes, &differences.clone()).token());
        assert_ne!(token, repair(Rollup::UserDays, &differences).token());
        assert_ne!(token, repair(Rollup::UserMinutes, &differences[..1]).token());
        assert_ne!(token, repair(Rollup::UserMinutes, &[difference("ann", 6, 4), differences[1].clone()]).token());
        let later = RepairKind::Difference { over_before: 1 };
        assert_ne!(token, Repair { kind: later, ..repair(Rollup::UserMinutes, &differences) }.token());
        let undo =
            |repair_id| Repair { kind: RepairKind::Undo { repair_id }, ..repair(Rollup::UserMinutes, &differences) };
        assert_eq!(undo("repair-a").token(), undo("repair-a").token());
        assert_ne!(undo("repair-a").token(), undo("repair-b").token());
    }

    #[test]
    fn a_days_row_counts_in_its_hour_and_all_before() {
        let differences = [difference("a", 0, 1)];
        let rows = repair(Rollup::UserDays, &differences).rows();
        let counts: Vec<i32> =
            rows[rows.len() - 96..].chunks(4).map(|bytes| i32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(counts[..4], [-1, -1, -1, 0]);
        assert!(counts[4..].iter().all(|count| *count == 0));
        assert_eq!(rows[..10], [7, b'd', b'e', b'f', b'a', b'u', b'l', b't', 1, 0], "the organization, the day");
    }

    #[test]
    fn what_is_added_and_what_is_taken_are_told_apart() {
        let differences = [difference("ann", 5, 3), difference("ben", 1, 5), difference("cid", 9, 8)];
        assert_eq!(repair(Rollup::UserMinutes, &differences).added_and_taken(), (3, 4));
    }
}
