//! Reads an organization's events in the order of arrival, page by page.
//!
//! The column `version` counts down as arrivals count up. Its index says which granules a range needs.

use clickhouse::Row;
use serde::Deserialize;

use super::error::QueryError;
use super::query_store::{QueryStore, all};
use super::ticket::QueryTicket;
use crate::domain::{OrgId, StoredEvent, Timestamp};

/// Of the events that arrived at one time: from the first on whose id has this hash.
const HASH: &str = "sipHash64(event_id)";

/// A range of the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalRange {
    /// The first arrival.
    pub from: u64,
    /// Of the events with that arrival, those are in it whose ids have at least this hash. (One service gives every
    /// event an arrival of its own; two on one database may not.)
    pub from_hash: u64,
    /// The arrival behind the last.
    pub before: u64,
}

/// An event with its place in the order of arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArrivedEvent {
    /// Its arrival.
    pub arrival: u64,
    /// The hash of its id.
    pub hash: u64,
    /// It.
    pub event: StoredEvent,
}

impl QueryStore {
    /// The first events of a range, in the order of their arrivals and hashes, at most so many. One that is stored twice
    /// may be there twice.
    pub async fn events_by_arrival(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        range: ArrivalRange,
        limit: u32,
    ) -> Result<Vec<ArrivedEvent>, QueryError> {
        let statement = format!(
            "SELECT event_id, type, campaign_id, creative_id, source, user_id, toUnixTimestamp64Milli(occurred_at) AS millis, \
             seq, properties, schema_version, version AS row_version, {HASH} AS id_hash \
             FROM events WHERE {RANGE} AND (version < {{first:UInt64}} OR {HASH} >= {{hash:UInt64}}) \
             ORDER BY version DESC, id_hash LIMIT {{limit:UInt32}}"
        );
        let query = self.ask(&ticket, &statement, org_id).param("first", u64::MAX - range.from);
        let query = query.param("end", u64::MAX - range.before).param("hash", range.from_hash).param("limit", limit);
        let rows: Vec<ArrivedRow> = all(query).await?;
        Ok(rows.into_iter().map(ArrivedRow::into_domain).collect())
    }

    /// The first arrival in a range; none when there is no event in it.
    pub async fn first_arrival(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        from: u64,
        before: u64,
    ) -> Result<Option<u64>, QueryError> {
        let statement = format!("SELECT max(version) AS first FROM events WHERE {RANGE}");
        let query = self.ask(&ticket, &statement, org_id).param("first", u64::MAX - from);
        let first: u64 = query.param("end", u64::MAX - before).fetch_one().await?;
        Ok((first > 0).then(|| u64::MAX - first))
    }
}

/// The events of a range, apart from hashes.
const RANGE: &str = "org_id = {org:String} AND version <= {first:UInt64} AND version > {end:UInt64}";

#[derive(Row, Deserialize)]
struct ArrivedRow {
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
    row_version: u64,
    id_hash: u64,
}

impl ArrivedRow {
    fn into_domain(self) -> ArrivedEvent {
        let arrival = u64::MAX - self.row_version;
        let event = StoredEvent {
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
            received_at_micros: i64::try_from(arrival).unwrap_or(i64::MAX),
        };
        ArrivedEvent { arrival, hash: self.id_hash, event }
    }
}
