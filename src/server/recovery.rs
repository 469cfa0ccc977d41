//! The steps before the port opens: the ClickHouse server is checked, its schema is migrated, and the index
//! is opened.

use std::sync::Arc;
use std::time::Duration;

use super::{Parts, ServerError, id_ledger};
use crate::clickhouse::analysts;
use crate::clickhouse::client::Endpoint;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::migrations::{MigrateError, migrate};
use crate::clickhouse::server_check::{ServerCheckError, check_server, check_tables};
use crate::config::Config;
use crate::event_store::StoreError;
use crate::ingest::index::Index;

/// Pause between attempts to reach ClickHouse at start.
const START_PAUSE: Duration = Duration::from_millis(200);
/// Attempts at start between two log lines.
const ATTEMPTS_PER_LINE: u32 = 25;

/// Waits for ClickHouse, brings its schema up to date, and opens the index:
/// from then on the service knows what it must not count again.
pub(super) async fn recover(config: &Config, endpoint: &Endpoint, parts: &Parts) -> Result<Arc<Index>, ServerError> {
    let mut attempt = 0_u32;
    loop {
        match attempt_recovery(config, endpoint, parts).await {
            Ok(index) => {
                tracing::info!(ids = index.ids(), unstored = parts.log.segments().rows(), "recovered");
                return Ok(index);
            }
            Err(RecoveryError::Refused(error)) => return Err(ServerError::Refused(error)),
            Err(RecoveryError::Retry(error)) if attempt.is_multiple_of(ATTEMPTS_PER_LINE) => {
                tracing::warn!(error, "the port cannot be opened yet; it is tried again");
            }
            Err(RecoveryError::Retry(_)) => {}
        }
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(START_PAUSE).await;
    }
}

/// Why an attempt to recover has failed.
enum RecoveryError {
    /// ClickHouse does not answer, or the disk failed.
    Retry(String),
    /// Somebody must change something first.
    Refused(String),
}

impl From<QueryError> for RecoveryError {
    fn from(error: QueryError) -> Self {
        Self::Retry(error.to_string())
    }
}

impl From<StoreError> for RecoveryError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Retry(error) => Self::Retry(error),
            StoreError::Refused(error) => Self::Refused(error),
        }
    }
}

impl From<ServerCheckError> for RecoveryError {
    fn from(error: ServerCheckError) -> Self {
        match error {
            ServerCheckError::Query(error) => error.into(),
            error @ ServerCheckError::Unmet(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<MigrateError> for RecoveryError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Query(error) => error.into(),
            error @ MigrateError::ForeignTtl(_) => Self::Refused(error.to_string()),
        }
    }
}

async fn attempt_recovery(config: &Config, endpoint: &Endpoint, parts: &Parts) -> Result<Arc<Index>, RecoveryError> {
    let Parts { fingerprinter, log, store, dedup_window, types, retention, .. } = parts;
    check_server(endpoint).await?;
    migrate(endpoint).await?;
    check_tables(endpoint).await?;
    if parts.engine_sandbox.is_some() {
        analysts::create_views(endpoint, &config.analyst_orgs.0).await?;
    }
    retention.refresh().await?;
    types.refresh().await.map_err(|error| RecoveryError::Retry(error.to_string()))?;
    dedup_window.set(store.dedup_window().await?);
    let database = store.state().await?;
    let (config, fingerprinter, log) = (config.clone(), *fingerprinter, Arc::clone(log));
    let opened = tokio::task::spawn_blocking(move || id_ledger::open(&config, fingerprinter, &database, &*log)).await;
    Ok(opened.map_err(|error| RecoveryError::Retry(error.to_string()))??)
}
