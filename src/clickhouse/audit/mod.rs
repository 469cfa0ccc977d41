//! The SQL of the audit.
//!
//! `sums` reads the checksums of an hour, `differences` the keys that differ, `repairs` inserts repairs,
//! `record` records them, `due` stores hours that wait, `quiet` detects running inserts. [`crate::audit`]
//! decides which readings are final and what is repaired.

mod differences;
mod due;
mod quiet;
mod record;
mod repairs;
mod sums;

use std::time::Duration;

use clickhouse::Client;
use clickhouse::query::Query;

pub(crate) use due::note_due;
pub(crate) use record::opposite;
pub use record::{RepairRecord, RollupRepairs};
pub use repairs::{Repair, RepairKind};
pub use sums::{EventSums, EventsState, RollupSums, Sum};

use super::client::Endpoint;
use super::pinned::pinned;
use super::ticket::QueryTicket;
use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, Timestamp};

/// Memory of one grouping, in bytes; beyond it goes to disk.
const GROUPING_BYTES_MAX: u64 = 1 << 30;

/// The limits of an audit's queries.
#[derive(Clone, Copy, Debug)]
pub struct Effort<'a> {
    /// Threads of a query. 0: ClickHouse's default.
    pub threads: u32,
    /// Longest time of a query.
    pub wait_max: Duration,
    /// The ticket of its queries.
    pub ticket: &'a QueryTicket,
}

/// One hour, of one organization or of all.
#[derive(Clone, Copy, Debug)]
pub struct HourScope<'a> {
    /// The organization; none for all.
    pub org_id: Option<&'a str>,
    /// The start of the hour.
    pub hour: Timestamp,
}

/// The statements of the audit.
pub struct AuditStore {
    client: Client,
    database: String,
}

impl AuditStore {
    /// Creates it for this server.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { client: pinned(endpoint.client()), database: endpoint.database.clone() }
    }

    /// A reading, with bounds.
    fn read(&self, statement: &str, org_id: Option<&str>, effort: Effort<'_>) -> Query {
        let seconds = effort.wait_max.as_secs().max(1).to_string();
        // An audit takes longer than other queries may: its own limit holds.
        let mut query = effort
            .ticket
            .put_on(self.client.query_raw(statement))
            .with_setting("max_execution_time", seconds)
            .with_setting("max_bytes_before_external_group_by", GROUPING_BYTES_MAX.to_string())
            .with_setting("do_not_merge_across_partitions_select_final", "1");
        if effort.threads > 0 {
            query = query.with_setting("max_threads", effort.threads.to_string());
        }
        match org_id {
            Some(org_id) => query.param("org", org_id),
            None => query,
        }
    }
}

impl HourScope<'_> {
    /// The condition on the organization.
    const fn of_org(&self) -> &'static str {
        if self.org_id.is_some() { "org_id = {org:String} AND" } else { "" }
    }

    /// The hour's first second, since 1970.
    fn second(&self) -> u32 {
        super::query_store::seconds(self.hour)
    }

    /// The rows of `events` in the hour. The bounds of `occurred_at` are given in
    /// milliseconds, as the column is: against whole seconds, ClickHouse leaves
    /// out a part all of whose events lie in the last second before the bound
    /// (26.7).
    fn events(&self) -> String {
        let (org, from) = (self.of_org(), self.second());
        let to = from.saturating_add(3_600);
        format!(
            "{org} toStartOfMinute(occurred_at) >= toDateTime({from}, 'UTC') \
             AND toStartOfMinute(occurred_at) < toDateTime({to}, 'UTC') \
             AND occurred_at >= toDateTime64({from}, 3, 'UTC') AND occurred_at < toDateTime64({to}, 3, 'UTC')"
        )
    }

    /// The rows of a rollup in the hour, by its column of time.
    fn within(&self, column: &str) -> String {
        let (org, from) = (self.of_org(), self.second());
        let to = from.saturating_add(3_600);
        format!("{org} {column} >= toDateTime({from}, 'UTC') AND {column} < toDateTime({to}, 'UTC')")
    }

    /// The rows of `campaign_minutes` in the hour: the day comes first in its
    /// sorting key.
    fn campaign_minutes(&self) -> String {
        format!("{} AND toDate(minute) = toDate(toDateTime({}, 'UTC'))", self.within("minute"), self.second())
    }

    /// The rows of `user_minutes` in the hour, likewise.
    fn user_minutes(&self) -> String {
        format!("{} AND toStartOfHour(minute) = toDateTime({}, 'UTC')", self.within("minute"), self.second())
    }

    /// The rows of `user_days` that count something in the hour.
    fn user_days(&self) -> String {
        let hours = self.hour_of_day();
        let any = if hours == 23 { "c23 != 0".to_owned() } else { format!("c{hours:02} != c{:02}", hours + 1) };
        format!("{} day = toDate(toDateTime({}, 'UTC')) AND {any}", self.of_org(), self.second())
    }

    /// What a row of `user_days` counts in the hour. Counts wrap around, as
    /// they do when they are summed.
    fn user_days_count(&self) -> String {
        match self.hour_of_day() {
            23 => "toInt32(c23)".to_owned(),
            hour => format!("toInt32(c{hour:02} - c{:02})", hour + 1),
        }
    }

    const fn hour_of_day(&self) -> i64 {
        self.hour.millis().rem_euclid(MILLIS_PER_DAY) / MILLIS_PER_HOUR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hour_of_a_day_has_no_column_behind_it() {
        let scope = |hour: i64| HourScope { org_id: None, hour: Timestamp::from_millis(hour * MILLIS_PER_HOUR) };
        assert_eq!(scope(24 + 7).user_days_count(), "toInt32(c07 - c08)");
        assert_eq!(scope(23).user_days_count(), "toInt32(c23)");
        assert!(scope(23).user_days().ends_with("c23 != 0"));
    }
}
