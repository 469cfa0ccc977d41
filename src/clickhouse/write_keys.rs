//! The write keys' side of ClickHouse: a small table, written a row at a time and read with `FINAL`, both as the
//! service's own user. Analysts and the reader of queries have no access to it.

use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};

use super::client::Endpoint;
use super::directory::insert;
use super::error::QueryError;
use super::pinned::pinned;
use super::query_store::all;
use super::ticket::QueryTicket;
use crate::domain::{OrgId, Timestamp, WriteKey};

/// Reads and writes the table of write keys.
pub struct WriteKeyStore {
    service: Client,
}

/// A key that may be used, as the table has it.
#[derive(Debug, Row, Deserialize)]
pub struct UsableKey {
    /// The organization.
    pub org_id: String,
    /// The SHA-256 of the key's text, in hexadecimal.
    pub digest: String,
}

impl WriteKeyStore {
    /// On this server.
    pub fn new(service: &Endpoint) -> Self {
        Self { service: pinned(service.client()) }
    }

    /// Every key of every organization that has not been revoked.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn usable(&self, ticket: QueryTicket) -> Result<Vec<UsableKey>, QueryError> {
        let statement = "SELECT toString(org_id) AS org_id, toString(digest) AS digest FROM write_keys FINAL \
             WHERE revoked_at = fromUnixTimestamp64Milli(0)";
        all(ticket.put_on(self.service.query_raw(statement))).await
    }

    /// Every key of an organization, the oldest first, with its digest.
    ///
    /// # Errors
    /// When ClickHouse does not answer.
    pub async fn list(&self, ticket: QueryTicket, org_id: &OrgId) -> Result<Vec<(WriteKey, String)>, QueryError> {
        let statement = "SELECT key_id, name, prefix, toString(digest) AS digest, \
                    toUnixTimestamp64Milli(created_at) AS created, toUnixTimestamp64Milli(revoked_at) AS revoked \
             FROM write_keys FINAL WHERE org_id = {org:String} ORDER BY key_id";
        let query = ticket.put_on(self.service.query_raw(statement)).param("org", org_id.as_str());
        let rows: Vec<KeyRow> = all(query).await?;
        Ok(rows.into_iter().map(|row| row.into_domain(org_id.clone())).collect())
    }

    /// Keeps a key, in place of its state of a lower version. It is durable when this returns.
    ///
    /// # Errors
    /// When ClickHouse does not say that it has it; it may have it nevertheless.
    pub async fn put(&self, key: &WriteKey, digest: &str, version: u64) -> Result<(), QueryError> {
        let row = NewKeyRow {
            org_id: key.org_id.as_str().to_owned(),
            key_id: key.key_id.clone(),
            name: key.name.clone(),
            prefix: key.prefix.clone(),
            digest: digest.to_owned(),
            created_at: key.created_at.millis(),
            revoked_at: key.revoked_at.map_or(0, Timestamp::millis),
            version,
        };
        insert(&self.service, "write_keys", std::iter::once(row)).await
    }
}

#[derive(Row, Deserialize)]
struct KeyRow {
    key_id: String,
    name: String,
    prefix: String,
    digest: String,
    created: i64,
    revoked: i64,
}

impl KeyRow {
    fn into_domain(self, org_id: OrgId) -> (WriteKey, String) {
        let Self { key_id, name, prefix, digest, created, revoked } = self;
        let revoked_at = (revoked != 0).then(|| Timestamp::from_millis(revoked));
        let key = WriteKey { org_id, key_id, name, prefix, created_at: Timestamp::from_millis(created), revoked_at };
        (key, digest)
    }
}

#[derive(Row, Serialize)]
struct NewKeyRow {
    org_id: String,
    key_id: String,
    name: String,
    prefix: String,
    digest: String,
    created_at: i64,
    revoked_at: i64,
    version: u64,
}
