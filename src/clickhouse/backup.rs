//! Backups of the tables, written and read by ClickHouse itself (`BACKUP` and `RESTORE`).
//!
//! A backup has two parts, made one after the other: first the rollups with everything else, then `events`. So
//! what is written meanwhile may be missing from the rollups of the copy, and never from its events alone; the
//! audit adds what rollups lack.

use std::fmt;

use clickhouse::Client;

use super::audit::note_due;
use super::client::Endpoint;
use super::error::QueryError;

/// How much earlier than the beginning of a backup an event may have arrived for its hour to be audited after a
/// restore, in microseconds: clocks of the service and of ClickHouse differ, and inserts take time.
const ARRIVAL_MARGIN_MICROS: u64 = 10 * 60 * 1_000_000;
/// What a destination says in place of the part's name.
const PLACEHOLDER: &str = "{part}";

/// A part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackupPart {
    /// Every table but `events`, and the views.
    Rollups,
    /// `events`.
    Events,
}

impl BackupPart {
    /// In the order in which they are backed up.
    pub const ALL: [Self; 2] = [Self::Rollups, Self::Events];

    /// As it is called in destinations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rollups => "rollups",
            Self::Events => "events",
        }
    }
}

/// Where ClickHouse writes a backup or reads it from: what follows `TO` or `FROM` in its statement, such as
/// `Disk('backups', '2026-11-27/{part}')`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupDestination(String);

/// A destination would put both parts in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a destination of a backup must contain {{part}}, as in Disk('backups', '2026-11-27/{{part}}')")]
pub struct DestinationError;

impl BackupDestination {
    /// Reads an expression of ClickHouse's.
    ///
    /// # Errors
    /// When it does not contain `{part}`.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        if text.contains(PLACEHOLDER) { Ok(Self(text.to_owned())) } else { Err(DestinationError) }
    }

    /// Files below the directory of backups of the embedded ClickHouse.
    pub fn files(name: &str) -> Self {
        Self(format!("File('{name}/{PLACEHOLDER}')"))
    }

    fn of(&self, part: BackupPart) -> String {
        self.0.replace(PLACEHOLDER, part.name())
    }
}

impl fmt::Display for BackupDestination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Backs up the database and the views of all organizations. Reads and writes go on meanwhile.
///
/// # Errors
/// When ClickHouse refuses or does not answer; what was written so far stays there.
pub async fn back_up(endpoint: &Endpoint, destination: &BackupDestination) -> Result<(), QueryError> {
    run_parts(endpoint, destination, BackupPart::ALL, "BACKUP", "TO").await
}

/// Restores what [`back_up`] has written, into a server that has none of the tables.
///
/// # Errors
/// When ClickHouse refuses or does not answer.
pub async fn restore(endpoint: &Endpoint, destination: &BackupDestination) -> Result<(), QueryError> {
    let client = endpoint.server_client();
    run(&client, &format!("CREATE DATABASE IF NOT EXISTS {}", endpoint.database)).await?;
    // The views between the tables name `events`.
    run_parts(endpoint, destination, [BackupPart::Events, BackupPart::Rollups], "RESTORE", "FROM").await
}

/// Whether the database has the table of events.
///
/// # Errors
/// When ClickHouse does not answer.
pub async fn has_events(endpoint: &Endpoint) -> Result<bool, QueryError> {
    let exists = format!("EXISTS TABLE {}.events", endpoint.database);
    let exists: u8 = endpoint.server_client().query_raw(&exists).fetch_one().await?;
    Ok(exists == 1)
}

/// Events that are stored.
///
/// # Errors
/// When ClickHouse does not answer.
pub async fn count_events(endpoint: &Endpoint) -> Result<u64, QueryError> {
    Ok(endpoint.client().query_raw("SELECT count() FROM events").fetch_one().await?)
}

/// Has the service audit the hours of events that arrived around or after this moment, in microseconds since
/// 1970: the backup may have their events and not their counts.
///
/// # Errors
/// When ClickHouse does not answer.
pub async fn note_uncertain_hours(endpoint: &Endpoint, began_at_micros: u64) -> Result<(), QueryError> {
    let since = began_at_micros.saturating_sub(ARRIVAL_MARGIN_MICROS);
    let rows = format!("(SELECT occurred_at FROM events WHERE arrival >= {since})");
    run(&endpoint.client(), &note_due(&rows)).await
}

async fn run_parts(
    endpoint: &Endpoint,
    destination: &BackupDestination,
    parts: [BackupPart; 2],
    verb: &str,
    preposition: &str,
) -> Result<(), QueryError> {
    let client = endpoint.server_client();
    for part in parts {
        let what = scope(&endpoint.database, part, verb);
        run(&client, &format!("{verb} {what} {preposition} {}", destination.of(part))).await?;
    }
    Ok(())
}

/// What of ClickHouse a part is. A list of tables that are left out ends the statement's list.
fn scope(database: &str, part: BackupPart, verb: &str) -> String {
    match part {
        BackupPart::Events => format!("TABLE {database}.events"),
        BackupPart::Rollups if verb == "BACKUP" => {
            format!("DATABASE {database}_analytics, DATABASE {database} EXCEPT TABLES {database}.events")
        }
        BackupPart::Rollups => format!("DATABASE {database}, DATABASE {database}_analytics"),
    }
}

async fn run(client: &Client, statement: &str) -> Result<(), QueryError> {
    Ok(client.query_raw(statement).execute().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_a_backup_has_a_place_of_its_own() {
        let destination = BackupDestination::parse("Disk('backups', 'a/{part}')").unwrap();
        assert_eq!(destination.of(BackupPart::Events), "Disk('backups', 'a/events')");
        assert_eq!(destination.of(BackupPart::Rollups), "Disk('backups', 'a/rollups')");
        assert_eq!(BackupDestination::files("b").of(BackupPart::Rollups), "File('b/rollups')");
        assert_eq!(BackupDestination::parse("Disk('backups', 'a')"), Err(DestinationError));
    }

    #[test]
    fn events_are_in_one_part_only() {
        assert_eq!(scope("t", BackupPart::Events, "BACKUP"), "TABLE t.events");
        assert!(scope("t", BackupPart::Rollups, "BACKUP").ends_with("EXCEPT TABLES t.events"));
    }
}
