//! The SQL of event types: stores and reads versions.

use std::time::Duration;

use clickhouse::query::Query;
use clickhouse::{Client, Row};
use serde::Deserialize;

use super::client::Endpoint;
use super::error::QueryError;
use super::pinned::pinned;
use super::ticket::QueryTicket;
use crate::domain::{OrgId, StoredVersion, Timestamp, UnknownTypes, VersionSummary};
use crate::event_row::put_string;

/// Reads and writes the table of event types.
pub struct EventTypeStore {
    writer: Client,
    reader: Client,
    wait_max: Duration,
}

/// The latest version of a type of some organization.
#[derive(Debug, Row, Deserialize)]
pub struct LatestRow {
    /// The organization's id.
    pub org_id: String,
    /// The type.
    pub r#type: String,
    /// The version's number.
    pub latest: u32,
    /// Its schema; empty: none.
    pub latest_schema: String,
}

impl EventTypeStore {
    /// Creates it for this server. Queries about one organization run as `reader`. An insert may
    /// take up to `wait_max`.
    pub fn new(endpoint: &Endpoint, reader: &Endpoint, wait_max: Duration) -> Self {
        Self { writer: pinned(endpoint.client()), reader: reader.client(), wait_max }
    }

    /// Changes with every registration, and with every change to an organization.
    pub async fn state(&self, ticket: QueryTicket) -> Result<String, QueryError> {
        let statement = "SELECT ifNull(toString(tuple( \
                 (SELECT count() FROM event_types), \
                 (SELECT max(toUnixTimestamp64Milli(created_at)) FROM event_types), \
                 (SELECT count() FROM organizations), \
                 (SELECT max(version) FROM organizations))), '') AS state";
        Ok(ticket.put_on(self.writer.query_raw(statement)).fetch_one().await?)
    }

    /// The latest version of every type of every organization.
    pub async fn latest(&self, ticket: QueryTicket) -> Result<Vec<LatestRow>, QueryError> {
        let statement = "SELECT toString(org_id) AS org_id, toString(type) AS type, max(version) AS latest, \
                    argMax(schema, (version, created_at)) AS latest_schema \
             FROM event_types GROUP BY org_id, type";
        Ok(ticket.put_on(self.writer.query_raw(statement)).fetch_all().await?)
    }

    /// The handling of events of unregistered types by each organization; the default is to accept
    /// them.
    pub async fn policies(&self, ticket: QueryTicket) -> Result<Vec<(String, UnknownTypes)>, QueryError> {
        let statement = "SELECT org_id, toString(argMax(unknown_event_types, version)) AS unknown_types \
             FROM organizations GROUP BY org_id";
        let rows: Vec<PolicyRow> = ticket.put_on(self.writer.query_raw(statement)).fetch_all().await?;
        let policy = |row: PolicyRow| UnknownTypes::parse(&row.unknown_types).map(|policy| (row.org_id, policy));
        Ok(rows.into_iter().filter_map(policy).collect())
    }

    /// How many types an organization has, and the bytes of their latest
    /// schemas.
    pub async fn count(&self, ticket: QueryTicket, org_id: &OrgId) -> Result<(u64, u64), QueryError> {
        let statement = "SELECT count() AS types, sum(bytes) AS bytes FROM \
             (SELECT length(argMax(schema, (version, created_at))) AS bytes FROM event_types \
              WHERE org_id = {org:String} GROUP BY type)";
        Ok(self.ask(&ticket, statement, org_id).fetch_one().await?)
    }

    /// Every type of an organization, by name.
    pub async fn list(&self, ticket: QueryTicket, org_id: &OrgId) -> Result<Vec<VersionSummary>, QueryError> {
        let statement = "SELECT toString(type) AS type, max(version) AS latest, \
                    argMax(notEmpty(schema), (version, created_at)) AS has_schema, \
                    toUnixTimestamp64Milli(argMax(created_at, (version, created_at))) AS created \
             FROM event_types WHERE org_id = {org:String} GROUP BY type ORDER BY type";
        let rows: Vec<SummaryRow> = self.ask(&ticket, statement, org_id).fetch_all().await?;
        Ok(rows.into_iter().map(SummaryRow::into_domain).collect())
    }

    /// Every version of a type, the latest first; none when it is not
    /// registered.
    pub async fn versions(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        event_type: &str,
    ) -> Result<Vec<StoredVersion>, QueryError> {
        let statement = "SELECT version, schema, toUnixTimestamp64Milli(created_at) AS created FROM event_types \
             WHERE org_id = {org:String} AND type = {type:String} \
             ORDER BY version DESC, created_at DESC LIMIT 1 BY version";
        let query = self.ask(&ticket, statement, org_id).param("type", event_type);
        let rows: Vec<VersionRow> = query.fetch_all().await?;
        Ok(rows.into_iter().map(|row| row.into_domain(event_type)).collect())
    }

    /// Adds a version. It is durable when this returns; after an error it may or may not be stored.
    pub async fn insert(&self, org_id: &OrgId, version: &StoredVersion) -> Result<(), QueryError> {
        let mut row = Vec::with_capacity(version.schema.len() + 256);
        put_string(&mut row, org_id.as_str());
        put_string(&mut row, &version.event_type);
        row.extend_from_slice(&version.version.to_le_bytes());
        put_string(&mut row, &version.schema);
        row.extend_from_slice(&version.created_at.millis().to_le_bytes());
        let statement = "INSERT INTO event_types (org_id, type, version, schema, created_at) FORMAT RowBinary";
        let mut insert = self
            .writer
            .insert_formatted_with(statement)
            .with_setting("async_insert", "0")
            .with_setting("wait_end_of_query", "1");
        let inserted = async {
            insert.send(row.into()).await?;
            insert.end().await
        };
        self.in_time(inserted).await
    }

    /// A statement about an organization.
    fn ask(&self, ticket: &QueryTicket, statement: &str, org_id: &OrgId) -> Query {
        let reader = self.reader.clone().with_setting("log_comment", org_id.as_str());
        ticket.put_on(reader.query_raw(statement)).param("org", org_id.as_str())
    }

    async fn in_time<T>(
        &self,
        asked: impl Future<Output = Result<T, clickhouse::error::Error>> + Send,
    ) -> Result<T, QueryError> {
        match tokio::time::timeout(self.wait_max, asked).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(QueryError::Unreachable("an insert of an event type took too long".to_owned())),
        }
    }
}

#[derive(Row, Deserialize)]
struct PolicyRow {
    org_id: String,
    unknown_types: String,
}

#[derive(Row, Deserialize)]
struct SummaryRow {
    r#type: String,
    latest: u32,
    has_schema: u8,
    created: i64,
}

impl SummaryRow {
    fn into_domain(self) -> VersionSummary {
        VersionSummary {
            event_type: self.r#type,
            version: self.latest,
            has_schema: self.has_schema != 0,
            created_at: Timestamp::from_millis(self.created),
        }
    }
}

#[derive(Row, Deserialize)]
struct VersionRow {
    version: u32,
    schema: String,
    created: i64,
}

impl VersionRow {
    fn into_domain(self, event_type: &str) -> StoredVersion {
        StoredVersion {
            event_type: event_type.to_owned(),
            version: self.version,
            schema: self.schema,
            created_at: Timestamp::from_millis(self.created),
        }
    }
}
