//! Waits for inserts that are running.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::AuditStore;
use crate::clickhouse::error::QueryError;

/// Pause between two looks whether inserts have ended.
const INSERTS_PAUSE: Duration = Duration::from_millis(20);

impl AuditStore {
    /// Waits until the inserts that run now have ended, for so long at most. Returns whether they have.
    /// Requires `SELECT` on `system.processes`.
    pub async fn inserts_have_ended(&self, wait_max: Duration) -> Result<bool, QueryError> {
        let deadline = Instant::now() + wait_max;
        let mut waited_for = self.inserts_running().await?;
        while !waited_for.is_empty() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(INSERTS_PAUSE).await;
            let running = self.inserts_running().await?;
            waited_for.retain(|id| running.contains(id));
        }
        Ok(true)
    }

    /// The query ids of running inserts that may concern the service's tables, of all clients.
    async fn inserts_running(&self) -> Result<BTreeSet<String>, QueryError> {
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
