//! Checksums of an hour.
//!
//! Each key of a rollup has a hash. The sum of `count × hash` over all keys, modulo 2⁶⁴, is equal for
//! equal counts, and differs for different counts except with a probability of 2⁻⁶⁴. It requires no
//! grouping by key, so it can be computed on merged and unmerged rows.
//!
//! Counts are signed here, since a repair may have added rows with negative counts.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::Deserialize;

use super::{AuditStore, Effort, HourScope};
use crate::clickhouse::error::QueryError;
use crate::domain::Rollup;

/// A number of events, and its checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Events.
    pub events: i64,
    /// The wrapping sum of the hashes of their keys.
    pub check: u64,
}

impl Sum {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { events: self.events.wrapping_add(other.events), check: self.check.wrapping_add(other.check) }
    }
}

/// The sums of the events of one organization and minute: the first row of each id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventSums {
    /// By campaign and type, of events with a campaign.
    pub campaigns: Sum,
    /// By type.
    pub types: Sum,
    /// By user, of events with a user.
    pub users: Sum,
}

/// A rollup's sums, by organization and bucket (in seconds since 1970).
pub type RollupSums = BTreeMap<(String, u32), Sum>;

/// A value that changes whenever a row is added to the events of an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Row, Deserialize)]
pub struct EventsState {
    /// Rows. A row that was written again counts again until it is merged.
    pub rows: u64,
    /// The wrapping sum of their versions.
    pub versions: u64,
}

#[derive(Row, Deserialize)]
struct EventRow {
    org_id: String,
    bucket: u32,
    ids: u64,
    campaign_events: u64,
    campaign_check: u64,
    type_check: u64,
    user_events: u64,
    user_check: u64,
}

#[derive(Row, Deserialize)]
struct RollupRow {
    org_id: String,
    bucket: u32,
    events: i64,
    check: u64,
}

impl EventRow {
    fn into_sums(self) -> ((String, u32), EventSums) {
        let sum = |events: u64, check: u64| Sum { events: events.cast_signed(), check };
        let sums = EventSums {
            campaigns: sum(self.campaign_events, self.campaign_check),
            types: sum(self.ids, self.type_check),
            users: sum(self.user_events, self.user_check),
        };
        ((self.org_id, self.bucket), sums)
    }
}

impl AuditStore {
    /// The sums of an hour's events, by organization and minute.
    pub async fn event_sums(
        &self,
        scope: HourScope<'_>,
        effort: Effort<'_>,
    ) -> Result<BTreeMap<(String, u32), EventSums>, QueryError> {
        let statement = format!(
            "SELECT org_id, toUnixTimestamp(toStartOfMinute(occurred_at)) AS bucket, count() AS ids, \
               countIf(campaign_id != '') AS campaign_events, \
               sumIf(cityHash64(campaign_id, type), campaign_id != '') AS campaign_check, \
               sum(cityHash64(type)) AS type_check, \
               countIf(user_id != '') AS user_events, sumIf(cityHash64(user_id), user_id != '') AS user_check \
             FROM events FINAL WHERE {} GROUP BY org_id, bucket",
            scope.events()
        );
        let rows: Vec<EventRow> = self.read(&statement, scope.org_id, effort).fetch_all().await?;
        Ok(rows.into_iter().map(EventRow::into_sums).collect())
    }

    /// A rollup's sums in an hour.
    pub async fn rollup_sums(
        &self,
        rollup: Rollup,
        scope: HourScope<'_>,
        effort: Effort<'_>,
    ) -> Result<RollupSums, QueryError> {
        let hour = scope.second();
        let (bucket, count, hash, rows) = match rollup {
            Rollup::CampaignMinutes => {
                ("minute".to_owned(), "events".to_owned(), "cityHash64(campaign_id, type)", scope.campaign_minutes())
            }
            Rollup::TypeHours => ("hour".to_owned(), "events".to_owned(), "cityHash64(type)", scope.within("hour")),
            // A row under the hash of another user is found by nobody.
            Rollup::UserDays => (
                format!("toDateTime({hour}, 'UTC')"),
                scope.user_days_count(),
                "if(user_key = sipHash64(user_id), cityHash64(user_id), cityHash64(user_key, user_id))",
                scope.user_days(),
            ),
            Rollup::UserMinutes => {
                ("minute".to_owned(), "toInt32(events)".to_owned(), "cityHash64(user_id)", scope.user_minutes())
            }
        };
        let statement = format!(
            "SELECT org_id, toUnixTimestamp(at) AS bucket, sum(n) AS events, sum(toUInt64(n) * hash) AS check \
             FROM (SELECT org_id, {bucket} AS at, toInt64({count}) AS n, {hash} AS hash FROM {} WHERE {rows}) \
             GROUP BY org_id, at",
            rollup.as_str()
        );
        let rows: Vec<RollupRow> = self.read(&statement, scope.org_id, effort).fetch_all().await?;
        Ok(rows
            .into_iter()
            .map(|row| ((row.org_id, row.bucket), Sum { events: row.events, check: row.check }))
            .collect())
    }

    /// The mark of an hour's events. (A row that merging drops changes it too,
    /// which does no harm.)
    pub async fn events_state(&self, scope: HourScope<'_>, effort: Effort<'_>) -> Result<EventsState, QueryError> {
        let statement =
            format!("SELECT count() AS rows, sum(version) AS versions FROM events WHERE {}", scope.events());
        Ok(self.read(&statement, scope.org_id, effort).fetch_one().await?)
    }
}

/// Rows of these minutes.
pub(super) fn in_minutes(column: &str, minutes: &[u32]) -> String {
    let list: Vec<String> = minutes.iter().map(|minute| format!("toDateTime({minute}, 'UTC')")).collect();
    format!("{column} IN ({})", list.join(", "))
}
