//! Hours that wait for the background audit, in the table `audit_due`.
//!
//! Versions come from ClickHouse's clock and rise, so an hour that is recorded while it is being audited
//! is still due afterwards.

use super::AuditStore;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::query_store::seconds;
use crate::clickhouse::ticket::QueryTicket;
use crate::domain::Timestamp;

/// Later than every version that is there.
const NEXT_VERSION: &str =
    "greatest(toUInt64(toUnixTimestamp64Micro(now64(6))), (SELECT max(version) + 1 FROM audit_due))";

/// The statement that records the hours of these rows as due.
pub(crate) fn note_due(rows: &str) -> String {
    format!(
        "INSERT INTO audit_due (hour, is_due, version) \
         SELECT hour, 1, {NEXT_VERSION} FROM (SELECT DISTINCT toStartOfHour(occurred_at) AS hour FROM {rows})"
    )
}

impl AuditStore {
    /// The hours that are due.
    pub async fn due_hours(&self) -> Result<Vec<Timestamp>, QueryError> {
        let statement = "SELECT toUnixTimestamp(hour) FROM audit_due FINAL WHERE is_due = 1";
        let hours: Vec<u32> = QueryTicket::own().put_on(self.client.query_raw(statement)).fetch_all().await?;
        Ok(hours.into_iter().map(|second| Timestamp::from_millis(i64::from(second) * 1_000)).collect())
    }

    /// The current version of the table; for [`AuditStore::audited`].
    pub async fn due_version(&self) -> Result<u64, QueryError> {
        let statement = "SELECT greatest(toUInt64(toUnixTimestamp64Micro(now64(6))), max(version)) FROM audit_due";
        Ok(QueryTicket::own().put_on(self.client.query_raw(statement)).fetch_one().await?)
    }

    /// Records hours as due.
    pub async fn need(&self, hours: &[Timestamp]) -> Result<(), QueryError> {
        self.note(hours, true, NEXT_VERSION).await
    }

    /// Records hours as audited, unless they became due after this version.
    pub async fn audited(&self, hours: &[Timestamp], version: u64) -> Result<(), QueryError> {
        self.note(hours, false, &format!("toUInt64({version})")).await
    }

    async fn note(&self, hours: &[Timestamp], is_due: bool, version: &str) -> Result<(), QueryError> {
        if hours.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = hours.iter().map(|hour| seconds(*hour).to_string()).collect();
        let statement = format!(
            "INSERT INTO audit_due (hour, is_due, version) \
             SELECT toDateTime(arrayJoin([{}]), 'UTC'), {}, {version}",
            list.join(","),
            u8::from(is_due)
        );
        let insert = crate::clickhouse::client::long_query(&self.client, &statement).with_setting("async_insert", "0");
        Ok(insert.execute().await?)
    }
}
