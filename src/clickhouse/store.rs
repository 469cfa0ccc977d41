//! Ingest's side of ClickHouse: inserts and look-ups.

use std::fmt::Write as _;

use bytes::Bytes;
use clickhouse::Client;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::client::Endpoint;
use super::error::{QueryError, insert_error};
use crate::domain::{MILLIS_PER_MINUTE, OrgId};
use crate::ingest::row;
use crate::ingest::store::{EventKey, EventStore, PayloadRows, SegmentInsert, StoreError};

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
pub(crate) const INSERT_SETTINGS: [(&str, &str); 19] = [
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

/// Pieces of an answer that may wait to be read.
const PIECES_WAITING_MAX: usize = 4;

/// See [`EventStore`].
pub struct ClickHouseStore {
    client: Client,
}

impl ClickHouseStore {
    /// On this server.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { client: endpoint.client() }
    }

    async fn insert_segment(&self, mut segment: SegmentInsert) -> Result<(), StoreError> {
        let statement = format!("INSERT INTO events ({}) FORMAT RowBinary", segment.columns);
        let mut insert = self.client.insert_formatted_with(statement);
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

    async fn stored_minutes(&self) -> Result<Vec<(i64, u64)>, QueryError> {
        let minutes = self.client.query_raw(
            "SELECT toInt64(toUnixTimestamp(toStartOfMinute(occurred_at))) * 1000 AS minute, count() AS events \
             FROM events GROUP BY minute ORDER BY minute DESC",
        );
        Ok(minutes.fetch_all().await?)
    }

    async fn read(&self, millis: i64) -> Result<mpsc::Receiver<Result<Bytes, StoreError>>, QueryError> {
        // Without a bound the condition must not be there: it would have to be
        // turned into a minute, which not every number can be.
        let since = if millis == i64::MIN {
            String::new()
        } else {
            format!("WHERE toStartOfMinute(occurred_at) >= fromUnixTimestamp64Milli({millis})")
        };
        let statement = format!("SELECT {} FROM events {since}", row::PAYLOAD_COLUMNS);
        let mut answer = self.client.query_raw(&statement).fetch_bytes("RowBinary")?;
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(async move {
            loop {
                let piece = match answer.next().await {
                    Ok(Some(piece)) => Ok(piece),
                    Ok(None) => return,
                    Err(error) => Err(QueryError::from(error).into()),
                };
                if sender.send(piece).await.is_err() {
                    return; // Nobody reads any more.
                }
            }
        });
        Ok(pieces)
    }

    async fn find(&self, org_id: &OrgId, keys: &[EventKey<'_>]) -> Result<PayloadRows, QueryError> {
        let mut tuples = String::with_capacity(keys.len() * 64);
        for key in keys {
            let minute = key.occurred_at_millis.div_euclid(MILLIS_PER_MINUTE) * (MILLIS_PER_MINUTE / 1_000);
            let comma = if tuples.is_empty() { "" } else { "," };
            let _ = write!(tuples, "{comma}({minute},{})", quoted(key.event_id)); // A String takes everything.
        }
        let statement = format!(
            "SELECT {} FROM events \
             WHERE org_id = {{org:String}} AND (toStartOfMinute(occurred_at), event_id) IN ({tuples})",
            row::PAYLOAD_COLUMNS
        );
        let query = self
            .client
            .query_raw(&statement)
            .param("org", org_id.as_str())
            .with_setting("max_query_size", (statement.len() + (1 << 10)).to_string());
        Ok(query.fetch_bytes("RowBinary")?.collect().await?.into())
    }
}

/// A text as a constant of ClickHouse's. (Parameters travel in the request's
/// address, which has no room for thousands of ids.)
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

impl EventStore for ClickHouseStore {
    fn insert(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>> {
        self.insert_segment(segment).boxed()
    }

    fn minutes(&self) -> BoxFuture<'_, Result<Vec<(i64, u64)>, StoreError>> {
        async { Ok(self.stored_minutes().await?) }.boxed()
    }

    fn read_since(&self, millis: i64) -> BoxFuture<'_, Result<mpsc::Receiver<Result<Bytes, StoreError>>, StoreError>> {
        async move { Ok(self.read(millis).await?) }.boxed()
    }

    fn look_up<'a>(
        &'a self,
        org_id: &'a OrgId,
        keys: &'a [EventKey<'a>],
    ) -> BoxFuture<'a, Result<PayloadRows, StoreError>> {
        async move { Ok(self.find(org_id, keys).await?) }.boxed()
    }
}
