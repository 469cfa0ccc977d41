//! The SQL of daily metrics: counts by day from the rollups, and values that organizations store
//! themselves.
//!
//! Reads as the user that sees one organization's rows, and writes as the service's own user.

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use super::client::Endpoint;
use super::directory::insert;
use super::error::QueryError;
use super::pinned::pinned;
use super::query_store::{QueryStore, all, from_seconds};
use super::ticket::QueryTicket;
use crate::domain::{CustomValue, MILLIS_PER_DAY, OrgId, Timestamp, Window};

/// The events of one type, or of all other types, on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeDay {
    /// The day's first moment.
    pub day: Timestamp,
    /// The type; empty for all other types.
    pub event_type: String,
    /// A count.
    pub events: u64,
}

/// Reads and writes daily metrics.
pub struct DailyMetrics {
    answers: QueryStore,
    service: Client,
}

impl DailyMetrics {
    /// Creates it for this server: one user reads, the other writes.
    pub fn new(reader: &Endpoint, service: &Endpoint) -> Self {
        Self { answers: QueryStore::new(reader), service: pinned(service.client()) }
    }

    /// The events of each of these types and of all others together, on each
    /// day of a window of whole days; days without any are left out.
    pub async fn type_days(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        window: Window,
        types: &[String],
    ) -> Result<Vec<TypeDay>, QueryError> {
        let statement = "SELECT toUnixTimestamp(toDateTime(toDate(hour), 'UTC')) AS start, \
                    if(type IN {types:Array(String)}, toString(type), '') AS event_type, sum(events) AS total \
             FROM type_hours \
             WHERE org_id = {org:String} AND hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC') \
             GROUP BY start, event_type HAVING total != 0 ORDER BY start, event_type";
        let rows: Vec<TypeDayRow> =
            all(self.answers.ask_window(&ticket, statement, org_id, window).param("types", types)).await?;
        let type_day =
            |row: TypeDayRow| TypeDay { day: from_seconds(row.start), event_type: row.event_type, events: row.total };
        Ok(rows.into_iter().map(type_day).collect())
    }

    /// The distinct users of a window of whole days.
    pub async fn active_users(&self, ticket: QueryTicket, org_id: &OrgId, window: Window) -> Result<u64, QueryError> {
        let statement = "SELECT count() FROM (SELECT user_key, user_id FROM user_days \
                   WHERE org_id = {org:String} AND day >= toDate(toDateTime({from:UInt32}, 'UTC')) \
                     AND day < toDate(toDateTime({to:UInt32}, 'UTC')) \
                   GROUP BY user_key, user_id HAVING sum(toInt32(c00)) != 0)";
        Ok(self.answers.ask_window(&ticket, statement, org_id, window).fetch_one().await?)
    }

    /// The names among these that have stored values.
    pub async fn known_names(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        names: &[String],
    ) -> Result<Vec<String>, QueryError> {
        let statement = "SELECT DISTINCT toString(name) FROM custom_metrics \
             WHERE org_id = {org:String} AND name IN {names:Array(String)}";
        all(self.answers.ask(&ticket, statement, org_id).param("names", names)).await
    }

    /// The values of these names in a window of whole days, in order of time.
    pub async fn values(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        names: &[String],
        window: Window,
    ) -> Result<Vec<CustomValue>, QueryError> {
        let statement = "SELECT toUnixTimestamp(toDateTime(date, 'UTC')) AS start, name, value \
             FROM custom_metrics FINAL \
             WHERE org_id = {org:String} AND name IN {names:Array(String)} \
               AND date >= toDate(toDateTime({from:UInt32}, 'UTC')) AND date < toDate(toDateTime({to:UInt32}, 'UTC')) \
             ORDER BY start, name";
        let query = self.answers.ask_window(&ticket, statement, org_id, window).param("names", names);
        let rows: Vec<ValueRow> = all(query).await?;
        let value = |row: ValueRow| CustomValue { day: from_seconds(row.start), name: row.name, value: row.value };
        Ok(rows.into_iter().map(value).collect())
    }

    /// Stores values, of which the highest version is valid. The first has this version, the others
    /// follow.
    pub async fn put(&self, org_id: &OrgId, values: &[CustomValue], first_version: u64) -> Result<(), QueryError> {
        let row = |(value, version): (&CustomValue, u64)| NewValueRow {
            org_id: org_id.as_str().to_owned(),
            name: value.name.clone(),
            // Days that can be kept have been checked for.
            date: u16::try_from(value.day.millis() / MILLIS_PER_DAY).unwrap_or(u16::MAX),
            value: value.value,
            version,
        };
        insert(&self.service, "custom_metrics", values.iter().zip(first_version..).map(row)).await
    }
}

#[derive(Row, Deserialize)]
struct TypeDayRow {
    start: u32,
    event_type: String,
    total: u64,
}

#[derive(Row, Deserialize)]
struct ValueRow {
    start: u32,
    name: String,
    value: f64,
}

#[derive(Row, Serialize)]
struct NewValueRow {
    org_id: String,
    name: String,
    date: u16,
    value: f64,
    version: u64,
}
