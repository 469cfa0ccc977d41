//! Migrations: numbered statements, each applied once, in order.
//!
//! The files in `clickhouse/` are part of the binary. A released file never changes; changes are added as
//! new files. Statements can be repeated without harm, so a crash between a file and its record has no
//! effect.

use clickhouse::Client;

use super::client::Endpoint;
use super::error::QueryError;
use super::pinned::pinned;
use super::retention::{ForeignTtl, remove_ttl};

/// Embeds the files, with their names.
macro_rules! migrations {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../clickhouse/", $name, ".sql")))),+]
    };
}

/// Name and statements of each file. The first makes the table that records
/// them.
const MIGRATIONS: [(&str, &str); 21] = migrations![
    "0001_create_database",
    "0002_create_events",
    "0003_create_campaign_minutes",
    "0004_create_type_hours",
    "0005_create_user_days",
    "0006_create_user_minutes",
    "0007_create_analytics_views",
    "0008_create_audit_repairs",
    "0009_replace_analytics_views",
    "0010_tune_user_rollups",
    "0011_create_organizations",
    "0012_create_custom_metrics",
    "0013_create_event_types",
    "0014_create_organization_views",
    "0015_drop_expired_months",
    "0016_merge_user_days_less_often",
    "0017_create_deleted_periods",
    "0018_create_audit_evidence",
    "0019_drop_organization_views",
    "0020_create_write_keys",
    "0021_index_arrivals",
];

/// Why the schema cannot be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// ClickHouse does not answer, or refuses. Can be retried.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The operator must change something first.
    #[error(transparent)]
    ForeignTtl(#[from] ForeignTtl),
}

impl From<clickhouse::error::Error> for MigrateError {
    fn from(error: clickhouse::error::Error) -> Self {
        Self::Query(error.into())
    }
}

/// Applies missing migrations.
///
/// # Errors
/// If ClickHouse refuses, or if the table `events` has a foreign TTL.
pub async fn migrate(endpoint: &Endpoint) -> Result<(), MigrateError> {
    let client = pinned(endpoint.server_client());
    let applied = applied(&client, endpoint).await?;
    for (name, file) in MIGRATIONS {
        if applied.iter().any(|done| done == name) {
            continue;
        }
        for statement in statements(file, endpoint) {
            client.query_raw(&statement).execute().await?;
        }
        let record = format!("INSERT INTO {}.schema_migrations (name) VALUES ({{name:String}})", endpoint.database);
        client.query_raw(&record).param("name", name).execute().await?;
        tracing::info!(migration = name, "applied");
    }
    Ok(remove_ttl(&client, &endpoint.database).await??)
}

/// The names of the files that a start would apply.
///
/// # Errors
/// When ClickHouse does not answer.
pub async fn pending(endpoint: &Endpoint) -> Result<Vec<&'static str>, QueryError> {
    let applied = applied(&pinned(endpoint.server_client()), endpoint).await?;
    let names = MIGRATIONS.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| !applied.iter().any(|done| done == name)).collect())
}

/// The names of the files that are recorded as applied.
async fn applied(client: &Client, endpoint: &Endpoint) -> Result<Vec<String>, QueryError> {
    let exists: u8 =
        client.query_raw(&format!("EXISTS TABLE {}.schema_migrations", endpoint.database)).fetch_one().await?;
    if exists == 0 {
        return Ok(Vec::new());
    }
    let names = client.query_raw(&format!("SELECT name FROM {}.schema_migrations", endpoint.database));
    Ok(names.fetch_all().await?)
}

/// The statements of a file, made out for this database.
fn statements(file: &str, endpoint: &Endpoint) -> Vec<String> {
    file.replace("{database}", &endpoint.database)
        .replace("{definer}", &endpoint.user)
        .split(";\n")
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| statement.lines().any(|line| !line.is_empty() && !line.starts_with("--")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn files_are_numbered_in_order_and_split_into_statements() {
        let endpoint = Endpoint::configured(&Config::default());
        for (place, (name, file)) in MIGRATIONS.iter().enumerate() {
            assert!(name.starts_with(&format!("{:04}_", place + 1)), "{name}");
            let statements = statements(file, &endpoint);
            assert!(!statements.is_empty(), "{name}");
            for statement in statements {
                assert!(!statement.contains("{database}") && !statement.contains("{definer}"), "{name}");
            }
        }
    }
}
