//! The SQL of queries: counts from the rollups, events from the raw table.
//!
//! Every statement names the organization, and passes all values as parameters. If a statement lacked
//! its condition, the user that runs it would still see the rows of one organization only: each query
//! carries the organization as the setting `log_comment`, and ClickHouse filters by it (see
//! `docs/security.md`).
//!
//! A repair by the audit may have added rows with negative counts, as complements. Sums of UInt64 wrap
//! around and are right; UInt32 is read as signed. Keys whose counts sum to zero are left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::Deserialize;
use uuid::Uuid;

use super::client::Endpoint;
use super::error::QueryError;
use super::operation::traced;
use super::ticket::QueryTicket;
pub use super::top_users::QUERIES_AT_A_TIME as TOP_USERS_AT_A_TIME;
use super::top_users::top_users;
use crate::domain::{
    CampaignBucket, CampaignCount, CampaignStats, DayCount, EventFilter, Granularity, Limit, MILLIS_PER_MINUTE, OrgId,
    PageKey, Ranking, StatsQuery, StoredEvent, Timestamp, UserCount, Window,
};

/// How far from the time in its id an event is looked for first.
const HINT_MILLIS: i64 = 10 * MILLIS_PER_MINUTE;

/// The columns of a stored event, as [`EventRow`] reads them.
const EVENT_COLUMNS: &str = "event_id, type, campaign_id, creative_id, source, user_id, \
     toUnixTimestamp64Milli(occurred_at) AS millis, seq, properties, schema_version, \
     toUnixTimestamp64Micro(received_at) AS received";

/// Reads the rollups and events. Every method is one query about one organization.
pub struct QueryStore {
    client: Client,
}

impl QueryStore {
    /// Creates it for this server.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { client: endpoint.client() }
    }

    /// A client that sees one organization's rows.
    fn client_of(&self, org_id: &OrgId) -> Client {
        traced(self.client.clone()).with_setting("log_comment", org_id.as_str())
    }

    /// A statement about an organization.
    pub(super) fn ask(&self, ticket: &QueryTicket, statement: &str, org_id: &OrgId) -> Query {
        ticket.put_on(self.client_of(org_id).query_raw(statement)).param("org", org_id.as_str())
    }

    /// A statement about an organization and a window in whole minutes.
    pub(super) fn ask_window(&self, ticket: &QueryTicket, statement: &str, org_id: &OrgId, window: Window) -> Query {
        self.ask(ticket, statement, org_id).param("from", seconds(window.from())).param("to", seconds(window.to()))
    }

    /// One campaign's counts over time.
    pub async fn campaign_stats(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        question: &StatsQuery,
    ) -> Result<CampaignStats, QueryError> {
        // A minute has few rows: to group them is dearer than to read them all.
        let (bucket, events, grouping) = match question.granularity {
            Granularity::Minute => ("minute", "events", ""),
            Granularity::Hour => ("toStartOfHour(minute)", "sum(events)", "GROUP BY start, is_click"),
            Granularity::Day => ("toStartOfDay(minute)", "sum(events)", "GROUP BY start, is_click"),
        };
        let statement = format!(
            "SELECT toUnixTimestamp({bucket}) AS start, type = 'click' AS is_click, {events} AS events_of_row \
             FROM campaign_minutes \
             WHERE org_id = {{org:String}} AND campaign_id = {{campaign:String}} AND {MINUTES_OF_WINDOW} \
               AND type IN ('impression', 'click') \
             {grouping} SETTINGS max_threads = 1"
        );
        let query =
            self.ask_window(&ticket, &statement, org_id, question.window).param("campaign", &question.campaign_id);
        Ok(buckets(all(query).await?))
    }

    /// The users with the most events of a window in whole minutes, with up to this many queries at
    /// a time.
    pub async fn top_users(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
        at_a_time: u32,
    ) -> Result<Ranking<UserCount>, QueryError> {
        top_users(&self.client_of(org_id), &ticket, org_id, window, limit, at_a_time).await
    }

    /// The campaigns with the most events of a window.
    pub async fn top_campaigns(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
    ) -> Result<Ranking<CampaignCount>, QueryError> {
        let statement = format!(
            "SELECT campaign_id, sum(events) AS total, sumIf(events, type = 'impression') AS impressions, \
                    sumIf(events, type = 'click') AS clicks \
             FROM campaign_minutes WHERE org_id = {{org:String}} AND {MINUTES_OF_WINDOW} \
             GROUP BY campaign_id HAVING total != 0 ORDER BY total DESC, campaign_id LIMIT {{limit:UInt32}}"
        );
        let query = self.ask_window(&ticket, &statement, org_id, window).param("limit", limit.get());
        let rows: Vec<CampaignRow> = all(query).await?;
        Ok(rows.into_iter().map(CampaignRow::into_domain).collect())
    }

    /// The different users of each day of a window of whole days; days without
    /// any are left out.
    pub async fn daily_active_users(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        window: Window,
    ) -> Result<Vec<DayCount>, QueryError> {
        let statement = "SELECT toUnixTimestamp(toDateTime(day, 'UTC')) AS start, count() AS users \
             FROM (SELECT day, user_key, user_id FROM user_days \
                   WHERE org_id = {org:String} AND day >= toDate(toDateTime({from:UInt32}, 'UTC')) \
                     AND day < toDate(toDateTime({to:UInt32}, 'UTC')) \
                   GROUP BY day, user_key, user_id HAVING sum(toInt32(c00)) != 0) \
             GROUP BY day ORDER BY day";
        let rows: Vec<DayRow> = all(self.ask_window(&ticket, statement, org_id, window)).await?;
        Ok(rows.into_iter().map(|row| DayCount { day: from_seconds(row.start), users: row.users }).collect())
    }

    /// Events, newest first. An id that another program has written again is returned once.
    /// (Without `FINAL`, which would merge the whole window for one page.)
    pub async fn list_events(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        filter: &EventFilter,
        limit: u32,
        after: Option<&PageKey>,
    ) -> Result<Vec<StoredEvent>, QueryError> {
        let statement = list_statement(filter, after);
        let mut query = self.ask(&ticket, &statement, org_id).param("limit", limit);
        if let Some(window) = filter.window {
            query = query.param("from_ms", window.from().millis()).param("to_ms", window.to().millis());
            query = query.param("from", seconds(window.from())).param("to", seconds(window.to()));
        }
        if !filter.campaign_id.is_empty() {
            query = query.param("campaign", &filter.campaign_id);
        }
        if !filter.user_id.is_empty() {
            query = query.param("user", &filter.user_id);
        }
        if !filter.types.is_empty() {
            query = query.param("types", &filter.types);
        }
        if let Some(after) = after {
            query = query.param("after_ms", after.occurred_at.millis()).param("after_id", &after.event_id);
        }
        let rows: Vec<EventRow> = all(query).await?;
        Ok(rows.into_iter().map(EventRow::into_domain).collect())
    }

    /// One event. The table is sorted by time, so an id that tells its time (a
    /// UUIDv7) is looked for around it first; any other costs a search through
    /// all ids.
    pub async fn event(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        event_id: &str,
    ) -> Result<Option<StoredEvent>, QueryError> {
        if let Some(hint) = minutes_around(event_id) {
            let near = self.find_event(&ticket, org_id, event_id, Some(hint)).await?;
            if near.is_some() {
                return Ok(near);
            }
        }
        self.find_event(&ticket, org_id, event_id, None).await
    }

    async fn find_event(
        &self,
        ticket: &QueryTicket,
        org_id: &OrgId,
        event_id: &str,
        within: Option<Window>,
    ) -> Result<Option<StoredEvent>, QueryError> {
        let bounds = within.map_or_else(String::new, |window| {
            let (from, to) = (seconds(window.from()), seconds(window.to()));
            format!("AND toStartOfMinute(occurred_at) BETWEEN toDateTime({from}, 'UTC') AND toDateTime({to}, 'UTC')")
        });
        let statement = format!(
            "SELECT {EVENT_COLUMNS} FROM events WHERE org_id = {{org:String}} AND event_id = {{id:String}} {bounds} \
             ORDER BY version DESC LIMIT 1"
        );
        let row: Option<EventRow> = self.ask(ticket, &statement, org_id).param("id", event_id).fetch_optional().await?;
        Ok(row.map(EventRow::into_domain))
    }
}

/// The minutes around the time in a UUIDv7.
fn minutes_around(event_id: &str) -> Option<Window> {
    let (id_seconds, _) = Uuid::parse_str(event_id).ok()?.get_timestamp()?.to_unix();
    let at = Timestamp::from_millis(i64::try_from(id_seconds).ok()?.checked_mul(1_000)?);
    Window::new(at.plus_millis(-HINT_MILLIS), at.plus_millis(HINT_MILLIS)).ok()
}

/// The rows of a rollup of minutes that lie in the window. The day stands
/// first in the sorting key.
const MINUTES_OF_WINDOW: &str = "toDate(minute) >= toDate(toDateTime({from:UInt32}, 'UTC')) \
     AND toDate(minute) <= toDate(toDateTime({to:UInt32}, 'UTC')) \
     AND minute >= toDateTime({from:UInt32}, 'UTC') AND minute < toDateTime({to:UInt32}, 'UTC')";

pub(super) async fn all<T>(query: Query) -> Result<Vec<T>, QueryError>
where
    T: clickhouse::RowOwned + clickhouse::RowRead,
{
    Ok(query.fetch_all().await?)
}

fn list_statement(filter: &EventFilter, after: Option<&PageKey>) -> String {
    let mut conditions = String::from("org_id = {org:String}");
    let mut and = |condition: &str| _ = write!(conditions, " AND {condition}"); // Writing to a String cannot fail.
    if filter.window.is_some() {
        and(
            "occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}) AND occurred_at < fromUnixTimestamp64Milli({to_ms:Int64})",
        );
        // What the primary key is read by. Minutes are DateTimes, which a window may well reach beyond.
        and("toStartOfMinute(occurred_at) >= toStartOfMinute(toDateTime({from:UInt32}, 'UTC'))");
        and("toStartOfMinute(occurred_at) <= toStartOfMinute(toDateTime({to:UInt32}, 'UTC'))");
    }
    if !filter.campaign_id.is_empty() {
        and("campaign_id = {campaign:String}");
    }
    if !filter.user_id.is_empty() {
        and("user_id = {user:String}");
    }
    if !filter.types.is_empty() {
        and("type IN {types:Array(String)}");
    }
    if after.is_some() {
        and("toStartOfMinute(occurred_at) <= toStartOfMinute(fromUnixTimestamp64Milli({after_ms:Int64}))");
        and("(occurred_at, event_id) < (fromUnixTimestamp64Milli({after_ms:Int64}), {after_id:String})");
    }
    format!(
        "SELECT {EVENT_COLUMNS} FROM events WHERE {conditions} \
         ORDER BY toStartOfMinute(occurred_at) DESC, occurred_at DESC, event_id DESC, version DESC \
         LIMIT 1 BY toStartOfMinute(occurred_at), event_id LIMIT {{limit:UInt32}}"
    )
}

/// Seconds since 1970, as ClickHouse's `DateTime` has them. Windows from
/// before 1970 or after 2106 begin and end there: no event lies beyond.
pub(super) fn seconds(moment: Timestamp) -> u32 {
    u32::try_from((moment.millis() / 1_000).max(0)).unwrap_or(u32::MAX)
}

pub(super) fn from_seconds(seconds: u32) -> Timestamp {
    Timestamp::from_millis(i64::from(seconds) * 1_000)
}

#[derive(Row, Deserialize)]
struct BucketRow {
    start: u32,
    is_click: u8,
    events_of_row: u64,
}

/// Adds up the rows of each bucket; those without events are none.
fn buckets(rows: Vec<BucketRow>) -> CampaignStats {
    let mut buckets: BTreeMap<u32, CampaignBucket> = BTreeMap::new();
    for BucketRow { start, is_click, events_of_row } in rows {
        let empty = CampaignBucket { start: from_seconds(start), impressions: 0, clicks: 0 };
        let bucket = buckets.entry(start).or_insert(empty);
        let events = if is_click == 0 { &mut bucket.impressions } else { &mut bucket.clicks };
        // A repair may have taken events away from a row. ClickHouse's sums turn over as well.
        *events = events.wrapping_add(events_of_row);
    }
    buckets.into_values().filter(|bucket| bucket.impressions != 0 || bucket.clicks != 0).collect()
}

#[derive(Row, Deserialize)]
struct CampaignRow {
    campaign_id: String,
    total: u64,
    impressions: u64,
    clicks: u64,
}

impl CampaignRow {
    fn into_domain(self) -> CampaignCount {
        let Self { campaign_id, total, impressions, clicks } = self;
        CampaignCount { campaign_id, events: total, impressions, clicks }
    }
}

#[derive(Row, Deserialize)]
struct DayRow {
    start: u32,
    users: u64,
}

#[derive(Row, Deserialize)]
struct EventRow {
    event_id: String,
    r#type: String,
    campaign_id: String,
    creative_id: String,
    source: String,
    user_id: String,
    millis: i64,
    seq: u64,
    properties: String,
    schema_version: u32,
    received: i64,
}

impl EventRow {
    fn into_domain(self) -> StoredEvent {
        StoredEvent {
            event_id: self.event_id,
            event_type: self.r#type,
            campaign_id: self.campaign_id,
            creative_id: self.creative_id,
            source: self.source,
            user_id: self.user_id,
            occurred_at: Timestamp::from_millis(self.millis),
            seq: self.seq,
            properties: self.properties,
            schema_version: self.schema_version,
            received_at_micros: self.received,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_bucket_add_up_and_one_without_events_is_none() {
        let row = |start, is_click, events_of_row| BucketRow { start, is_click, events_of_row };
        let taken_away = 2_u64.wrapping_neg();
        let rows = vec![row(120, 0, 3), row(60, 1, 2), row(120, 1, 4), row(60, 1, taken_away), row(120, 0, 5)];
        let bucket = CampaignBucket { start: from_seconds(120), impressions: 8, clicks: 4 };
        assert_eq!(buckets(rows), [bucket]);
    }
}
