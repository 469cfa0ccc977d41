//! The SQL of ingest: inserts and look-ups.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client;
use clickhouse::query::Query;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::audit::{AuditStore, note_due};
use super::client::{Endpoint, long_query, quoted};
use super::error::{QueryError, insert_error};
use super::operation::{INSERT, LOOKUP, traced};
use super::pinned::pinned;
use super::query_limiter::QueryLimiter;
use super::ticket::QueryTicket;
use crate::domain::{MILLIS_PER_MINUTE, OrgId, Timestamp};
use crate::event_row;
use crate::event_store::{
    DatabaseState, EventKey, EventReading, EventStore, MinuteSet, PayloadRows, SegmentInsert, StoreError,
};
use crate::fairness::Tenant;
use crate::hour_versions::TouchedHours;
use crate::log::dedup_window::DedupWindow;

/// What makes an insert exact, each said although some are defaults: defaults
/// have changed between versions of ClickHouse.
///
/// - One insert is one block, and one block is remembered under one token, in
///   the raw table and in the target of every view. A repeated insert is left
///   out of each of them that has it already. The same rows cut into other
///   blocks would be counted again, so what decides on blocks must stay as it
///   is for as long as a segment may be repeated.
/// - The insert is synchronous: when it is answered, all of it is there.
/// - Rollups are summed up when they are merged, not when they are inserted,
///   which spares the insert much of what the views cost.
pub const INSERT_SETTINGS: [(&str, &str); 19] = [
    ("async_insert", "0"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("update_insert_deduplication_token_in_dependent_materialized_views", "0"),
    ("materialized_views_ignore_errors", "0"),
    ("max_insert_block_size", "1048576"),
    ("max_insert_block_size_rows", "1048576"),
    ("max_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows", "1048576"),
    ("min_insert_block_size_bytes", "0"),
    ("min_insert_block_size_rows_for_materialized_views", "0"),
    ("min_insert_block_size_bytes_for_materialized_views", "0"),
    // Late events may lie in any number of months.
    ("max_partitions_per_insert_block", "0"),
    ("input_format_parallel_parsing", "0"),
    ("parallel_view_processing", "0"),
    ("max_insert_threads", "1"),
    ("optimize_on_insert", "0"),
    ("wait_end_of_query", "1"),
];

/// The number of these rules. It rises with every change to them, to the
/// tables' `non_replicated_deduplication_window`, and to what a version of
/// ClickHouse makes of them: segments that were opened under other rules are
/// then not inserted again by their tokens alone.
const INSERT_RULES: u32 = 1;

/// Smallest number of tokens that every table must remember.
pub(crate) const TOKENS_REMEMBERED: u64 = 10_000;
/// Blocks after which a token may have been forgotten: what is counted is the
/// blocks of all tables together.
const TOKEN_BLOCKS_MAX: u64 = 9_000;
/// Longest wait for the inserts that run when a segment turns out to be damaged.
const INSERTS_WAIT_MAX: Duration = Duration::from_secs(20);
/// Time for which a table that forgets tokens by time must remember them, in
/// seconds: replicated and shared ones do.
pub(crate) const TOKEN_SECONDS_REMEMBERED: u64 = 7 * 24 * 60 * 60;
/// Age after which a token may have been forgotten.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(TOKEN_SECONDS_REMEMBERED - 24 * 60 * 60);

/// The tables that a segment reaches.
pub const TABLES: &str = "'events', 'campaign_minutes', 'type_hours', 'user_days', 'user_minutes'";

/// Whether an event's time lies in a period whose events are deleted. That such
/// an event is not stored does not say that it was not counted.
const IS_DELETED: &str = "arrayExists(period -> occurred_at >= period.1 AND occurred_at < period.2, \
    (SELECT groupArray((starts_at, ends_at)) FROM deleted_periods WHERE state = 'deleted'))";

/// Longest the events of some minutes, or of all, are read.
const READ_MAX: Duration = Duration::from_secs(60 * 60);
/// Most events of a reading that are asked for at a time. ClickHouse keeps them
/// until all have been read, so that an answer is whole or an error.
const PAGE_EVENTS_MAX: u64 = 250_000;

/// Pieces of an answer that may wait to be read.
const PIECES_WAITING_MAX: usize = 4;

/// See [`EventStore`].
pub struct ClickHouseStore {
    client: Client,
    repairs: AuditStore,
    /// For what ingest reads; inserts need no place among them.
    look_ups: Arc<QueryLimiter>,
}

impl ClickHouseStore {
    /// Creates it for this server. `look_ups` limits its reads.
    pub fn new(endpoint: &Endpoint, look_ups: Arc<QueryLimiter>) -> Self {
        Self { client: pinned(endpoint.client()), repairs: AuditStore::new(endpoint), look_ups }
    }

    async fn insert_rows(&self, table: &str, segment: SegmentInsert) -> Result<(), StoreError> {
        let calls = segment.calls.clone();
        let kind = |error: &StoreError| match error {
            StoreError::Retry(_) => "retry",
            StoreError::Refused(_) => "refused",
        };
        INSERT.measured_for(&calls, self.send_rows(table, segment), kind).await
    }

    async fn send_rows(&self, table: &str, mut segment: SegmentInsert) -> Result<(), StoreError> {
        let statement = format!("INSERT INTO {table} ({}) FORMAT RowBinary", segment.columns);
        let mut insert = traced(self.client.clone()).insert_formatted_with(statement);
        for (name, value) in INSERT_SETTINGS {
            insert = insert.with_setting(name, value);
        }
        insert = insert.with_setting("insert_deduplication_token", segment.token.to_string());
        while let Some(chunk) = segment.chunks.recv().await {
            // Leaving without `end` breaks the request off, and ClickHouse
            // drops what it has read of it.
            let chunk = chunk.map_err(|error| StoreError::Refused(error.to_string()))?;
            insert.send(chunk).await.map_err(|error| insert_error(&error))?;
        }
        insert.end().await.map_err(|error| insert_error(&error))
    }

    async fn read_state(&self) -> Result<DatabaseState, QueryError> {
        let statement = "SELECT toString(uuid), ifNull(total_rows, 0) FROM system.tables \
                         WHERE database = currentDatabase() AND name = 'events'";
        let (id, events): (String, u64) = self.client.query_raw(statement).fetch_one().await?;
        Ok(DatabaseState { id, events })
    }

    async fn read_dedup_window(&self) -> Result<DedupWindow, QueryError> {
        // Numbers of blocks rise with every insert and are never given twice.
        let statement = format!(
            "SELECT toUInt64(sum(blocks)) FROM (SELECT max(max_block_number) AS blocks FROM system.parts \
             WHERE active AND database = currentDatabase() AND table IN ({TABLES}) GROUP BY table)"
        );
        let blocks: u64 = QueryTicket::own().put_on(self.client.query_raw(&statement)).fetch_one().await?;
        // An empty database has none; 0 means that it is not known.
        Ok(DedupWindow { rules: INSERT_RULES, blocks: blocks + 1 })
    }

    async fn wait_for_inserts(&self) -> Result<(), StoreError> {
        if self.repairs.inserts_have_ended(INSERTS_WAIT_MAX).await? {
            return Ok(());
        }
        Err(StoreError::Retry("an insert that runs does not end".to_owned()))
    }

    /// The segment goes into a table of its own, and from there what is missing
    /// goes into `events`, at whatever point the time before was broken off.
    async fn settle_segment(&self, segment: SegmentInsert) -> Result<(), StoreError> {
        let staging = format!("settling_{}", segment.token.simple());
        let columns = segment.columns.clone();
        let run = async |statement: String| {
            let query = self.client.query_raw(&statement).with_setting("async_insert", "0");
            query.execute().await.map_err(QueryError::from)
        };
        run(format!("DROP TABLE IF EXISTS {staging} SYNC")).await?;
        run(format!("CREATE TABLE {staging} AS events ENGINE = MergeTree ORDER BY tuple()")).await?;
        self.insert_rows(&staging, segment).await?;
        let expired = format!("SELECT count() FROM {staging} WHERE {IS_DELETED}");
        let expired: u64 = self.client.query_raw(&expired).fetch_one().await.map_err(QueryError::from)?;
        if expired > 0 {
            tracing::warn!(staging, expired, "left out events of a settled segment whose months have been deleted");
        }
        // The key of the table, so that no more of it is read than may be the
        // segment's, and no more is remembered than the segment has.
        let key = "(org_id, toStartOfMinute(occurred_at), event_id)";
        let missing = format!(
            "{staging} WHERE {key} NOT IN \
             (SELECT {key} FROM events WHERE {key} IN (SELECT {key} FROM {staging})) AND NOT ({IS_DELETED})"
        );
        // A rollup may have them already. Whoever finds it counting too many
        // finds here that they were inserted again.
        run(format!(
            "INSERT INTO settled_events (org_id, minute, event_id) \
             SELECT org_id, toStartOfMinute(occurred_at), event_id FROM {missing}"
        ))
        .await?;
        let mut settle =
            self.client.query_raw(&format!("INSERT INTO events ({columns}) SELECT {columns} FROM {missing}"));
        for (name, value) in INSERT_SETTINGS {
            settle = settle.with_setting(name, value);
        }
        settle = settle.with_setting("insert_deduplicate", "0").with_setting("deduplicate_insert", "disable");
        // A query's id is taken while it runs, so that an attempt whose answer
        // was lost and the next one never both find the same events missing.
        settle.with_setting("query_id", &staging).execute().await.map_err(QueryError::from)?;
        // After the events: an audit that has not seen them does not settle it.
        run(note_due(&staging)).await?;
        run(format!("DROP TABLE {staging} SYNC")).await?;
        Ok(())
    }

    /// How many events are stored of each minute that has any, newest first.
    async fn stored_minutes(&self) -> Result<Vec<(Timestamp, u64)>, QueryError> {
        let statement = "SELECT toInt64(toUnixTimestamp(toStartOfMinute(occurred_at))) * 1000 AS minute, \
                         count() AS events FROM events GROUP BY minute ORDER BY minute DESC";
        let running = self.look_ups.begin(&Tenant::Service, READ_MAX).await?;
        let query = running.ticket().put_on(long_query(&self.client, statement));
        let rows: Vec<(i64, u64)> = query.fetch_all().await?;
        running.finish();
        Ok(rows.into_iter().map(|(millis, events)| (Timestamp::from_millis(millis), events)).collect())
    }

    async fn read_minutes(&self, minutes: &MinuteSet) -> Result<EventReading, QueryError> {
        let pages = match minutes {
            MinuteSet::These(_) => vec![condition(minutes)],
            MinuteSet::All => pages(&self.stored_minutes().await?),
        };
        let look_ups = Arc::clone(&self.look_ups);
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        let client = self.client.clone();
        tokio::spawn(async move {
            for page in pages {
                let statement = format!("SELECT {} FROM events {page}", event_row::PAYLOAD_COLUMNS);
                let read = async {
                    let running = look_ups.begin(&Tenant::Service, READ_MAX).await?;
                    send_pieces(running.ticket().put_on(long_query(&client, &statement)), &sender).await?;
                    running.finish();
                    Ok::<_, QueryError>(())
                };
                if let Err(error) = read.await {
                    let _ = sender.send(Err(error.into())).await; // Nobody may read any more.
                    return;
                }
            }
        });
        Ok(pieces)
    }

    async fn find_in_place(&self, org_id: &OrgId, keys: &[EventKey<'_>]) -> Result<PayloadRows, QueryError> {
        let running = self.look_ups.begin(&Tenant::from(org_id), self.look_ups.wait_max()).await?;
        let rows = self.find(running.ticket(), org_id, keys).await?;
        running.finish();
        Ok(rows)
    }

    async fn find(
        &self,
        ticket: &QueryTicket,
        org_id: &OrgId,
        keys: &[EventKey<'_>],
    ) -> Result<PayloadRows, QueryError> {
        let mut tuples = String::with_capacity(keys.len() * 64);
        for key in keys {
            let minute = key.occurred_at_millis.div_euclid(MILLIS_PER_MINUTE) * (MILLIS_PER_MINUTE / 1_000);
            let comma = if tuples.is_empty() { "" } else { "," };
            let _ = write!(tuples, "{comma}({minute},{})", quoted(key.event_id)); // A String takes everything.
        }
        let statement = format!(
            "SELECT {} FROM events \
             WHERE org_id = {} AND (toStartOfMinute(occurred_at), event_id) IN ({tuples})",
            event_row::PAYLOAD_COLUMNS,
            quoted(org_id.as_str())
        );
        let query = ticket.put_on(long_query(&traced(self.client.clone()), &statement));
        Ok(query.fetch_bytes("RowBinary")?.collect().await?.into())
    }
}

/// Hands over an answer as it arrives.
async fn send_pieces(query: Query, pieces: &mpsc::Sender<Result<Bytes, StoreError>>) -> Result<(), QueryError> {
    let mut answer = query.fetch_bytes("RowBinary")?;
    while let Some(piece) = answer.next().await? {
        if pieces.send(Ok(piece)).await.is_err() {
            return Ok(()); // Nobody reads any more.
        }
    }
    Ok(())
}

/// The `WHERE`s of readings that together hold all events of these minutes, each
/// of about [`PAGE_EVENTS_MAX`] of them, or of one minute.
fn pages(stored_newest_first: &[(Timestamp, u64)]) -> Vec<String> {
    let mut pages = Vec::new();
    let mut end: Option<Timestamp> = None;
    let mut events = 0;
    for ((minute, count), (_, next_count)) in stored_newest_first.iter().zip(stored_newest_first.iter().skip(1)) {
        events += count;
        if events + next_count > PAGE_EVENTS_MAX {
            pages.push(between(Some(*minute), end));
            end = Some(*minute);
            events = 0;
        }
    }
    pages.push(between(None, end));
    pages
}

/// The `WHERE` that holds for the events of the minutes from one to another,
/// which is not part of it.
fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> String {
    let mut bounds = Vec::new();
    for (bound, sign) in [(from, ">="), (to, "<")] {
        if let Some(second) = bound.map(|minute| minute.millis() / 1_000) {
            // The second in milliseconds, as the column is, see below.
            bounds.push(format!(
                "toStartOfMinute(occurred_at) {sign} toDateTime({second}) AND occurred_at {sign} toDateTime64({second}, 3)"
            ));
        }
    }
    if bounds.is_empty() { String::new() } else { format!("WHERE {}", bounds.join(" AND ")) }
}

/// The `WHERE` that holds for the events of these minutes. (Without a bound there
/// is none: it would have to be a time, which not every number can be.)
fn condition(minutes: &MinuteSet) -> String {
    let seconds = |minute: &Timestamp| minute.millis() / 1_000;
    match minutes {
        MinuteSet::All => between(None, None),
        MinuteSet::These(minutes) => {
            let (first, last) = (minutes.iter().min().map_or(0, seconds), minutes.iter().max().map_or(0, seconds));
            let mut list = String::with_capacity(minutes.len() * 11);
            for minute in minutes {
                let comma = if list.is_empty() { "" } else { "," };
                let _ = write!(list, "{comma}{}", seconds(minute)); // A String takes everything.
            }
            // The bounds leave out whole months, which the list does not. They
            // are given in milliseconds, as the column is: against whole
            // seconds, ClickHouse leaves out a part all of whose events lie in
            // the last second before the bound (26.7).
            let end = last + MILLIS_PER_MINUTE / 1_000;
            format!(
                "WHERE toStartOfMinute(occurred_at) IN ({list}) \
                   AND occurred_at >= toDateTime64({first}, 3) AND occurred_at < toDateTime64({end}, 3)"
            )
        }
    }
}

impl EventStore for ClickHouseStore {
    fn state(&self) -> BoxFuture<'_, Result<DatabaseState, StoreError>> {
        async { Ok(self.read_state().await?) }.boxed()
    }

    fn dedup_window(&self) -> BoxFuture<'_, Result<DedupWindow, StoreError>> {
        async { Ok(self.read_dedup_window().await?) }.boxed()
    }

    fn token_blocks_max(&self) -> u64 {
        TOKEN_BLOCKS_MAX
    }

    fn token_age_max(&self) -> Duration {
        TOKEN_AGE_MAX
    }

    fn repaired_since<'a>(&'a self, hours: &'a TouchedHours, micros: u64) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move { Ok(self.repairs.repaired_since(hours, micros).await?) }.boxed()
    }

    fn inserts_ended(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.wait_for_inserts().boxed()
    }

    fn settle(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>> {
        self.settle_segment(segment).boxed()
    }

    fn insert(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>> {
        self.insert_rows("events", segment).boxed()
    }

    fn read<'a>(&'a self, minutes: &'a MinuteSet) -> BoxFuture<'a, Result<EventReading, StoreError>> {
        async { Ok(self.read_minutes(minutes).await?) }.boxed()
    }

    fn look_up<'a>(
        &'a self,
        org_id: &'a OrgId,
        keys: &'a [EventKey<'a>],
    ) -> BoxFuture<'a, Result<PayloadRows, StoreError>> {
        async move { Ok(LOOKUP.measured(self.find_in_place(org_id, keys), QueryError::kind).await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_hold_every_minute_once() {
        let minute = |number: i64| Timestamp::from_millis(number * MILLIS_PER_MINUTE);
        let stored = [(minute(9), 100_000), (minute(8), 100_000), (minute(5), 300_000), (minute(4), 1)];
        let of = |from: i64, to: i64| between(Some(minute(from)), Some(minute(to)));
        let newest = between(Some(minute(8)), None);
        assert_eq!(pages(&stored), [newest, of(5, 8), between(None, Some(minute(5)))]);
        assert_eq!(pages(&[]), [""]);
        assert_eq!(pages(&stored[..2]), [""]);
    }
}
