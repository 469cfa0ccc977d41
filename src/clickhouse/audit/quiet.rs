//! Detects inserts that are running.

use std::collections::BTreeSet;

use super::AuditStore;
use crate::clickhouse::error::QueryError;

impl AuditStore {
    /// The query ids of running inserts that may concern the service's tables, of all clients.
    /// Requires `SELECT` on `system.processes`.
    pub async fn inserts_running(&self) -> Result<BTreeSet<String>, QueryError> {
        let running = self
            .client
            .query_raw(
                "SELECT query_id FROM system.processes WHERE query_kind IN ('Insert', 'AsyncInsertFlush') \
                 AND (current_database = {database:String} OR position(query, {database:String}) > 0)",
            )
            .param("database", &self.database);
        let ids: Vec<String> = running.fetch_all().await?;
        Ok(ids.into_iter().collect())
    }
}
