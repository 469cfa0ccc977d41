//! Cancels queries whose callers have disconnected.

use std::time::Duration;

use clickhouse::Client;

use super::client::{Endpoint, long_query, quoted};
use super::error::QueryError;

/// Pauses between attempts to cancel a query: one that was on its way to
/// ClickHouse when its caller went may begin after the first attempt.
const PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(200), Duration::from_secs(1)];

/// Cancels queries in ClickHouse, as the service's own user.
#[derive(Clone)]
pub struct QueryCanceller {
    client: Client,
}

impl QueryCanceller {
    /// Creates it for this server. The user must be allowed `KILL QUERY` and to read
    /// `system.processes`.
    pub fn new(endpoint: &Endpoint) -> Self {
        Self { client: endpoint.server_client() }
    }

    /// Cancels these queries, and returns when none of them is running. ClickHouse counts neither
    /// of the two statements among those that run at a time.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn cancel(&self, query_ids: &[String]) -> Result<(), QueryError> {
        if query_ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = query_ids.iter().map(|id| quoted(id)).collect();
        let condition = format!("query_id IN ({})", ids.join(","));
        for pause in PAUSES {
            // SYNC: it is answered when they have ended.
            long_query(&self.client, &format!("KILL QUERY WHERE {condition} SYNC")).execute().await?;
            let running = format!("SELECT count() FROM system.processes WHERE {condition}");
            let running: u64 = long_query(&self.client, &running).fetch_one().await?;
            if running == 0 {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
        }
        Err(QueryError::Failed("queries go on although they were cancelled".to_owned()))
    }
}
