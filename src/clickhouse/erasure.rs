//! Deletes the data of one user of an organization, and keeps the counts that
//! are not about users.
//!
//! The user's events stay as events of nobody: their ids, times, types and
//! campaigns. So every count by campaign, type and time is as before, and an
//! event that is sent again is still known. The user, the properties and what
//! the directory knows of the user are gone, also from the counts by user.

use clickhouse::Client;

use super::client::Endpoint;
use super::error::QueryError;
use crate::domain::OrgId;

/// Tables whose rows of a user are deleted.
const DELETED: [&str; 5] = ["user_days", "user_minutes", "users", "memberships", "audit_repair_keys"];
/// Which rows are the user's.
const OF_USER: &str = "org_id = {org:String} AND user_id = {user:String}";

/// What the database holds of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserData {
    /// Events.
    pub events: u64,
    /// Rows of counts by day and minute, of the directory, and of the record of repairs.
    pub rows: u64,
}

impl UserData {
    /// Whether there is nothing.
    pub const fn is_empty(self) -> bool {
        self.events == 0 && self.rows == 0
    }
}

/// What there is of a user. A user that has merely been rolled up counts too.
///
/// # Errors
/// When ClickHouse does not answer.
pub async fn find_user(endpoint: &Endpoint, org_id: &OrgId, user_id: &str) -> Result<UserData, QueryError> {
    let client = endpoint.client();
    let mut found = UserData { events: count(&client, "events", org_id, user_id).await?, rows: 0 };
    for table in DELETED {
        found.rows += count(&client, table, org_id, user_id).await?;
    }
    Ok(found)
}

/// Deletes it. Events first: in between, counts by user are too high and can only be found so by the audit, which
/// takes nothing away without proof. Returns when every part of the tables has been rewritten.
///
/// # Errors
/// When ClickHouse refuses or does not answer. What was done stays done; do it again.
pub async fn erase_user(endpoint: &Endpoint, org_id: &OrgId, user_id: &str) -> Result<(), QueryError> {
    let client = endpoint.client();
    run(&client, &format!("ALTER TABLE events UPDATE user_id = '', properties = '' WHERE {OF_USER}"), org_id, user_id)
        .await?;
    for table in DELETED {
        run(&client, &format!("ALTER TABLE {table} DELETE WHERE {OF_USER}"), org_id, user_id).await?;
    }
    Ok(())
}

async fn count(client: &Client, table: &str, org_id: &OrgId, user_id: &str) -> Result<u64, QueryError> {
    let statement = format!("SELECT count() FROM {table} WHERE {OF_USER}");
    let query = client.query_raw(&statement).param("org", org_id.as_str()).param("user", user_id);
    Ok(query.fetch_one().await?)
}

async fn run(client: &Client, statement: &str, org_id: &OrgId, user_id: &str) -> Result<(), QueryError> {
    // Waits for the mutation, on every replica.
    let query = client.query_raw(statement).with_setting("mutations_sync", "2");
    Ok(query.param("org", org_id.as_str()).param("user", user_id).execute().await?)
}
