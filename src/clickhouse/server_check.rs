//! Checks the requirements of exactness before the port opens: the server's version, settings, engines of
//! the tables, their deduplication windows, and the views. Errors name what to change.

use std::collections::BTreeMap;

use clickhouse::Row;
use serde::Deserialize;

use super::client::Endpoint;
use super::error::QueryError;
use super::pinned::{READ_SETTINGS, WRITE_SETTINGS};
use super::store::{INSERT_SETTINGS, TABLES, TOKEN_SECONDS_REMEMBERED, TOKENS_REMEMBERED};

/// The oldest version whose deduplication is the one that is relied on: since
/// it there is `deduplicate_insert`.
const VERSION_MIN: (u32, u32) = (26, 3);
/// A parameter of ClickHouse's HTTP interface that is sent with the settings and
/// is none.
const HTTP_PARAMETER: &str = "wait_end_of_query";
/// The code of a statement that sets what its user may not set
/// (`READONLY`, and `SETTING_CONSTRAINT_VIOLATION`).
const CONSTRAINT_CODES: [&str; 2] = ["Code: 164.", "Code: 452."];

/// Why the server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ServerCheckError {
    /// ClickHouse does not answer. Can be retried.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The operator must change something first.
    #[error("this ClickHouse cannot be used: {}", .0.join("; "))]
    Unmet(Vec<String>),
}

impl From<clickhouse::error::Error> for ServerCheckError {
    fn from(error: clickhouse::error::Error) -> Self {
        Self::Query(error.into())
    }
}

#[derive(Row, Deserialize)]
struct TableRow {
    name: String,
    engine: String,
    engine_full: String,
}

/// Checks the version and the settings. Call it before the migrations.
///
/// # Errors
/// Says what to change.
pub async fn check_server(endpoint: &Endpoint) -> Result<(), ServerCheckError> {
    // Plainly: what cannot be set is what is looked for.
    let client = endpoint.server_client();
    let version: String = client.query_raw("SELECT version()").fetch_one().await?;
    if let Some(reason) = too_old(&version) {
        return Err(ServerCheckError::Unmet(vec![reason]));
    }
    let names: Vec<String> = pinned_names().map(|name| format!("'{name}'")).collect();
    let known = format!("SELECT name FROM system.settings WHERE name IN ({})", names.join(","));
    let known: Vec<String> = client.query_raw(&known).fetch_all().await?;
    let mut unmet: Vec<String> = pinned_names()
        .filter(|name| !known.iter().any(|other| other == name))
        .map(|name| {
            format!("it does not know the setting {name}: use version {}.{} or later", VERSION_MIN.0, VERSION_MIN.1)
        })
        .collect();
    if unmet.is_empty() {
        for settings in [&READ_SETTINGS[..], &WRITE_SETTINGS, &INSERT_SETTINGS] {
            let probe = client.query_raw("SELECT 1");
            let probe = settings.iter().fold(probe, |probe, (name, value)| probe.with_setting(*name, *value));
            match probe.fetch_one::<u8>().await {
                Ok(_) => {}
                Err(error) if is_constraint(&error.to_string()) => unmet.push(format!(
                    "the user {} may not set what the service must set with each statement (give it a profile without \
                     constraints and readonly = 0): {error}",
                    endpoint.user
                )),
                Err(error) => return Err(error.into()),
            }
        }
    }
    if unmet.is_empty() { Ok(()) } else { Err(ServerCheckError::Unmet(unmet)) }
}

/// Checks the tables and the views.
///
/// # Errors
/// Says what to change.
pub async fn check_tables(endpoint: &Endpoint) -> Result<(), ServerCheckError> {
    let client = endpoint.client();
    let statement = "SELECT name, engine, engine_full FROM system.tables WHERE database = currentDatabase()";
    let rows: Vec<TableRow> = client.query_raw(statement).fetch_all().await?;
    let defaults = "SELECT name, value FROM system.replicated_merge_tree_settings WHERE name LIKE '%dedup%'";
    let defaults: Vec<(String, String)> = client.query_raw(defaults).fetch_all().await?;
    let defaults: BTreeMap<String, String> = defaults.into_iter().collect();
    let unmet = unmet_tables(&endpoint.database, &rows, &defaults);
    if unmet.is_empty() { Ok(()) } else { Err(ServerCheckError::Unmet(unmet)) }
}

fn pinned_names() -> impl Iterator<Item = &'static str> {
    let is_setting = |name: &&str| *name != HTTP_PARAMETER;
    let names = READ_SETTINGS.into_iter().chain(WRITE_SETTINGS).chain(INSERT_SETTINGS).map(|(name, _)| name);
    names.filter(is_setting).collect::<std::collections::BTreeSet<_>>().into_iter()
}

fn is_constraint(error: &str) -> bool {
    CONSTRAINT_CODES.iter().any(|code| error.contains(code))
}

fn too_old(version: &str) -> Option<String> {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let found = (numbers.next()??, numbers.next()??);
    let (major, minor) = VERSION_MIN;
    (found < VERSION_MIN).then(|| format!("its version is {version}: use {major}.{minor} or later"))
}

/// The tables that a segment reaches.
fn tables() -> impl Iterator<Item = &'static str> {
    TABLES.split(", ").map(|name| name.trim_matches('\''))
}

fn unmet_tables(database: &str, rows: &[TableRow], defaults: &BTreeMap<String, String>) -> Vec<String> {
    let find = |name: &str| rows.iter().find(|row| row.name == name);
    let mut unmet = Vec::new();
    for name in tables() {
        match find(name) {
            Some(row) => unmet.extend(unmet_table(database, row, defaults)),
            None => unmet.push(format!("the table {database}.{name} is missing: restore it")),
        }
        if name != "events" && find(&format!("{name}_view")).is_none_or(|view| view.engine != "MaterializedView") {
            unmet.push(format!(
                "the materialized view {database}.{name}_view is missing, so {name} does not count: create it as in the \
                 migrations, and let the audit repair what was not counted"
            ));
        }
    }
    unmet
}

/// What a table must have.
fn unmet_table(database: &str, row: &TableRow, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let TableRow { name, engine, engine_full } = row;
    let table = format!("{database}.{name}");
    let kind = if name == "events" { "ReplacingMergeTree" } else { "SummingMergeTree" };
    let number = |setting: &str| setting_of(engine_full, setting).or_else(|| defaults.get(setting)?.parse().ok());
    let mut needs: Vec<(&str, u64)> = vec![("fsync_after_insert", 1), ("fsync_part_directory", 1)];
    match engine.strip_suffix(kind) {
        Some("") => needs.push(("non_replicated_deduplication_window", TOKENS_REMEMBERED)),
        // These keep tokens elsewhere, and for a time.
        Some("Replicated" | "Shared") => {
            needs.push(("replicated_deduplication_window", TOKENS_REMEMBERED));
            needs.push(("replicated_deduplication_window_seconds", TOKEN_SECONDS_REMEMBERED));
            if engine.starts_with("Shared") {
                needs.retain(|(setting, _)| !setting.starts_with("fsync")); // Its parts are objects in a store.
            }
        }
        _ => return vec![format!("the table {table} has the engine {engine}: it must be {kind}")],
    }
    let is_unmet = |(setting, min): &(&str, u64)| number(setting).is_none_or(|value| value < *min);
    let change = |(setting, min): (&str, u64)| {
        format!("{setting} of the table {table} is too small: ALTER TABLE {table} MODIFY SETTING {setting} = {min}")
    };
    needs.into_iter().filter(is_unmet).map(change).collect()
}

/// A number among the settings that a table was made with.
fn setting_of(engine_full: &str, setting: &str) -> Option<u64> {
    let (_, settings) = engine_full.split_once(" SETTINGS ")?;
    let value = settings.split(", ").find_map(|one| one.strip_prefix(setting)?.strip_prefix(" = "))?;
    value.trim_matches('\'').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(change: impl Fn(&mut TableRow)) -> Vec<TableRow> {
        let of = |name: &str, engine: &str| {
            let settings = "index_granularity = 512, non_replicated_deduplication_window = 10000, \
                            fsync_after_insert = 1, fsync_part_directory = 1";
            let engine_full = format!("{engine}(version) ORDER BY a SETTINGS {settings}");
            TableRow { name: name.to_owned(), engine: engine.to_owned(), engine_full }
        };
        let mut rows: Vec<TableRow> = Vec::new();
        for name in tables() {
            let engine = if name == "events" { "ReplacingMergeTree" } else { "SummingMergeTree" };
            rows.push(of(name, engine));
            rows.push(of(&format!("{name}_view"), "MaterializedView"));
        }
        rows.iter_mut().for_each(change);
        rows
    }

    fn check(change: impl Fn(&mut TableRow), expected: &[&str]) {
        let defaults =
            [("replicated_deduplication_window", "10000"), ("replicated_deduplication_window_seconds", "3600")];
        let defaults = defaults.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        let unmet = unmet_tables("tallyhouse", &rows(change), &defaults);
        assert_eq!(unmet.len(), expected.len(), "{unmet:?}");
        for (unmet, expected) in unmet.iter().zip(expected) {
            assert!(unmet.contains(expected), "{unmet}: {expected}");
        }
    }

    #[test]
    fn what_a_table_lacks_is_said_with_what_to_change() {
        let of = |name: &'static str, from: &'static str, to: &'static str| {
            move |row: &mut TableRow| {
                if row.name == name {
                    row.engine_full = row.engine_full.replace(from, to);
                    row.engine = row.engine.replace(from, to);
                }
            }
        };
        check(|_| {}, &[]);
        check(
            of("type_hours", "window = 10000", "window = 100"),
            &["ALTER TABLE tallyhouse.type_hours MODIFY SETTING non_replicated_deduplication_window = 10000"],
        );
        check(
            of("events", "fsync_after_insert = 1, ", ""),
            &["tallyhouse.events MODIFY SETTING fsync_after_insert = 1"],
        );
        check(of("events", "ReplacingMergeTree", "MergeTree"), &["it must be ReplacingMergeTree"]);
        check(of("events", "ReplacingMergeTree", "CoalescingMergeTree"), &["it must be ReplacingMergeTree"]);
        // The window is by default large enough, and forgets after an hour.
        check(
            of("events", "ReplacingMergeTree", "ReplicatedReplacingMergeTree"),
            &["events MODIFY SETTING replicated_deduplication_window_seconds = 604800"],
        );
        check(
            of("user_days", "SummingMergeTree", "SharedSummingMergeTree"),
            &["user_days MODIFY SETTING replicated_deduplication_window_seconds = 604800"],
        );
        check(of("user_days_view", "MaterializedView", "View"), &["user_days_view is missing"]);
        check(of("user_days", "SummingMergeTree", "Distributed"), &["it must be SummingMergeTree"]);
    }

    #[test]
    fn a_version_before_the_settings_is_refused() {
        for (version, is_refused) in
            [("25.12.1.1", true), ("26.2.9.9", true), ("26.3.1.1", false), ("26.7.2.1", false), ("27.1", false)]
        {
            assert_eq!(too_old(version).is_some(), is_refused, "{version}");
        }
    }

    #[test]
    fn a_setting_is_found_by_its_whole_name() {
        let engine = "MergeTree ORDER BY a SETTINGS a_window = 1, window = 22, text = '7'";
        assert_eq!(setting_of(engine, "window"), Some(22));
        assert_eq!(setting_of(engine, "text"), Some(7));
        assert_eq!(setting_of(engine, "indow"), None);
        assert_eq!(setting_of("MergeTree ORDER BY a", "window"), None);
    }
}
