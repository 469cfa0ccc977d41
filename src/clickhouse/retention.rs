//! The SQL of retention: stored months, deleted periods, and the TTL of earlier versions.

use std::time::Duration;

use clickhouse::{Client, Row};
use serde::Deserialize;

use super::client::Endpoint;
use super::error::QueryError;
use super::pinned::pinned;
use super::ticket::QueryTicket;
use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, Period, Timestamp};

/// The earliest moment that a column of type DateTime64 can hold: 1900-01-01.
const FIRST: Timestamp = Timestamp::from_millis(-2_208_988_800_000);
/// What `toDateTime` and the sum of a DateTime and an interval can hold: 32
/// bits of seconds. Later moments begin again at 1970.
const WRAP_MILLIS: i64 = (1 << 32) * 1_000;
/// How far the clock that a TTL went by may be off.
const TTL_CLOCK_OFF_MILLIS: i64 = MILLIS_PER_HOUR;

/// The state of the deletion of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeletionState {
    /// Its events are rejected from now on.
    Announced,
    /// Its events may have been deleted.
    Deleted,
}

impl DeletionState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Deleted => "deleted",
        }
    }
}

/// A period whose events are deleted, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedPeriod {
    /// The period.
    pub period: Period,
    /// Its state.
    pub state: DeletionState,
    /// How long ago it was announced.
    pub age: Duration,
}

/// The months that have events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMonths {
    /// ClickHouse's clock.
    pub now: Timestamp,
    /// Their numbers, `year × 100 + month`.
    pub numbers: Vec<u32>,
}

#[derive(Row, Deserialize)]
struct PeriodRow {
    from: i64,
    to: i64,
    is_deleted: u8,
    age_millis: i64,
}

#[derive(Row, Deserialize)]
struct MonthsRow {
    now: i64,
    numbers: Vec<u32>,
}

/// Reads and deletes months of `events`, and reads and writes `deleted_periods`.
pub struct RetentionStore {
    client: Client,
}

impl RetentionStore {
    /// Creates it for this server.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { client: pinned(endpoint.client()) }
    }

    /// The periods that are recorded as announced or deleted.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn deleted_periods(&self) -> Result<Vec<DeletedPeriod>, QueryError> {
        let statement = "SELECT toUnixTimestamp64Milli(starts_at) AS from, toUnixTimestamp64Milli(ends_at) AS to, \
             max(state = 'deleted') AS is_deleted, \
             toUnixTimestamp64Milli(now64(3)) - toUnixTimestamp64Milli(min(at)) AS age_millis \
             FROM deleted_periods GROUP BY starts_at, ends_at ORDER BY starts_at, ends_at";
        let rows: Vec<PeriodRow> = QueryTicket::own().put_on(self.client.query_raw(statement)).fetch_all().await?;
        Ok(rows.into_iter().map(PeriodRow::into_period).collect())
    }

    /// The months that have events.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn stored_months(&self) -> Result<StoredMonths, QueryError> {
        let statement = "SELECT toUnixTimestamp64Milli(now64(3)) AS now, \
             arraySort(groupUniqArray(toUInt32OrZero(partition_id))) AS numbers \
             FROM system.parts WHERE active AND database = currentDatabase() AND table = 'events'";
        let row: MonthsRow = QueryTicket::own().put_on(self.client.query_raw(statement)).fetch_one().await?;
        Ok(StoredMonths { now: Timestamp::from_millis(row.now), numbers: row.numbers })
    }

    /// Records the state of a period.
    ///
    /// # Errors
    /// If it is unknown whether it was recorded.
    pub async fn record(&self, period: Period, state: DeletionState, days: u32) -> Result<(), QueryError> {
        let statement = insert_period("deleted_periods", period, state, days, "retention");
        Ok(self.client.query_raw(&statement).with_setting("async_insert", "0").execute().await?)
    }

    /// Deletes the events of a month, and returns the number of rows.
    ///
    /// # Errors
    /// If it is unknown whether they were deleted.
    pub async fn delete_month(&self, number: u32) -> Result<u64, QueryError> {
        let count = format!(
            "SELECT sum(rows) FROM system.parts \
             WHERE active AND database = currentDatabase() AND table = 'events' AND partition_id = '{number}'"
        );
        let rows: u64 = QueryTicket::own().put_on(self.client.query_raw(&count)).fetch_one().await?;
        // Its size is no reason to keep it.
        let delete = self
            .client
            .query_raw(&format!("ALTER TABLE events DROP PARTITION ID '{number}'"))
            .with_setting("max_partition_size_to_drop", "0")
            .with_setting("max_table_size_to_drop", "0");
        delete.execute().await?;
        Ok(rows)
    }
}

impl PeriodRow {
    fn into_period(self) -> DeletedPeriod {
        DeletedPeriod {
            period: Period { from: Timestamp::from_millis(self.from), to: Timestamp::from_millis(self.to) },
            state: if self.is_deleted == 1 { DeletionState::Deleted } else { DeletionState::Announced },
            age: Duration::from_millis(u64::try_from(self.age_millis).unwrap_or_default()),
        }
    }
}

fn insert_period(table: &str, period: Period, state: DeletionState, days: u32, cause: &str) -> String {
    format!(
        "INSERT INTO {table} (starts_at, ends_at, state, retention_days, cause) \
         SELECT fromUnixTimestamp64Milli({}, 'UTC'), fromUnixTimestamp64Milli({}, 'UTC'), '{}', {days}, '{cause}'",
        period.from.millis(),
        period.to.millis(),
        state.as_str()
    )
}

/// What is to be said of a TTL that the service did not set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the table {table} has the TTL {expression:?}, by which ClickHouse deletes events behind the service's back; run \
     ALTER TABLE {table} REMOVE TTL and use the setting retention_days"
)]
pub struct ForeignTtl {
    table: String,
    expression: String,
}

/// Removes the TTL that versions before 0.2 have set, and records the periods whose events it may
/// have deleted.
pub(super) async fn remove_ttl(client: &Client, database: &str) -> Result<Result<(), ForeignTtl>, QueryError> {
    let statement = format!(
        "SELECT engine_full, toUnixTimestamp64Milli(now64(3)) FROM system.tables \
         WHERE database = '{database}' AND name = 'events'"
    );
    let (engine, now): (String, i64) = client.query_raw(&statement).fetch_one().await?;
    let days = match Ttl::of_engine(&engine) {
        Ttl::None => return Ok(Ok(())),
        Ttl::Days(days) => days,
        Ttl::Foreign(expression) => return Ok(Err(ForeignTtl { table: format!("{database}.events"), expression })),
    };
    for period in lost_to_ttl(days, Timestamp::from_millis(now)) {
        let table = format!("{database}.deleted_periods");
        let record = insert_period(&table, period, DeletionState::Deleted, days, "ttl");
        client.query_raw(&record).with_setting("async_insert", "0").execute().await?;
    }
    client.query_raw(&format!("ALTER TABLE {database}.events REMOVE TTL")).execute().await?;
    tracing::info!(days, "the TTL of the events was removed: the service deletes them itself");
    Ok(Ok(()))
}

/// A table's TTL.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ttl {
    None,
    /// As versions before 0.2 have set it.
    Days(u32),
    /// Another.
    Foreign(String),
}

impl Ttl {
    /// As `system.tables.engine_full` says it.
    fn of_engine(engine: &str) -> Self {
        let Some((_, behind)) = engine.split_once(" TTL ") else { return Self::None };
        let expression = behind.split_once(" SETTINGS ").map_or(behind, |(expression, _)| expression);
        let days = expression.strip_prefix("toDateTime(occurred_at) + toIntervalDay(");
        match days.and_then(|rest| rest.strip_suffix(')')?.parse().ok()) {
            Some(days) => Self::Days(days),
            None => Self::Foreign(expression.to_owned()),
        }
    }
}

/// Of which periods a TTL of so many days may have deleted events by now.
fn lost_to_ttl(days: u32, now: Timestamp) -> Vec<Period> {
    let days_millis = i64::from(days) * MILLIS_PER_DAY;
    let expired = Period { from: FIRST, to: now.plus_millis(TTL_CLOCK_OFF_MILLIS - days_millis).min(now) };
    // Its sum was taken to lie in 1970, long ago.
    let wrapped = Period { from: Timestamp::from_millis(WRAP_MILLIS).plus_millis(-days_millis), to: now };
    [expired, wrapped].into_iter().filter(|period| period.from < period.to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_752_000_000);

    #[test]
    fn only_the_ttl_of_earlier_versions_is_taken_away() {
        let check = |ttl: &str, expected: Ttl| {
            let engine =
                format!("ReplacingMergeTree(version) ORDER BY (org_id, event_id){ttl} SETTINGS fsync_after_insert = 1");
            assert_eq!(Ttl::of_engine(&engine), expected);
        };
        check("", Ttl::None);
        check(" TTL toDateTime(occurred_at) + toIntervalDay(730)", Ttl::Days(730));
        for foreign in [
            "toDateTime(occurred_at) + toIntervalMonth(1)",
            "toDateTime(occurred_at) + toIntervalDay(730) WHERE org_id = 'a'",
            "toDateTime(occurred_at) + toIntervalDay(1) TO DISK 'cold'",
        ] {
            check(&format!(" TTL {foreign}"), Ttl::Foreign(foreign.to_owned()));
        }
    }

    #[test]
    fn what_a_ttl_may_have_deleted_is_known_also_where_it_wrapped() {
        let at = |millis: i64| NOW.plus_millis(millis);
        let two_years = lost_to_ttl(730, NOW);
        assert_eq!(two_years, [Period { from: FIRST, to: at(MILLIS_PER_HOUR - 730 * MILLIS_PER_DAY) }]);
        // A hundred years: everything since 2006 was gone at once.
        let wrapped = lost_to_ttl(36_500, NOW);
        assert_eq!(wrapped.len(), 2);
        assert_eq!((wrapped[1].from.millis() / MILLIS_PER_DAY, wrapped[1].to), (49_710 - 36_500, NOW));
        assert_eq!(lost_to_ttl(28_000, NOW).len(), 1);
    }
}
