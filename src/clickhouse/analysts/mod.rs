//! ClickHouse users for analysts, and the views that each can read.
//!
//! The analyst of an organization reads views in a separate database. The views read the tables as their
//! definer, a user of that organization that cannot log in, with row policies that name the organization
//! as a constant. ClickHouse applies a row policy before any other condition of a query, so filters that
//! throw, settings and subqueries see rows of that organization only. The analyst has no privilege on the
//! underlying tables.
//!
//! The embedded engine gets these users from its users file, a server from the statements of
//! [`statements`].

mod key;
mod settings;
mod statements;

pub use key::AnalystKey;
pub(crate) use settings::fixed;
pub use settings::{Bound, SETTINGS, Setting};
pub use statements::statements;

use super::client::Endpoint;
use super::error::QueryError;
use crate::domain::OrgId;

/// The tables that an organization's views read.
pub(crate) const TABLES: [&str; 10] = [
    "events",
    "campaign_minutes",
    "type_hours",
    "user_days",
    "user_minutes",
    "organizations",
    "users",
    "memberships",
    "custom_metrics",
    "event_types",
];

/// The user of those who read all organizations.
const ANALYST: &str = "analyst";
/// The views of one organization, to be made out for each.
const ORGANIZATION_VIEWS: &str = include_str!("../../../clickhouse/templates/organization_views.sql");

/// An organization's id as a part of ClickHouse's names, each its own: letters,
/// digits and `_` as they are, `.` and `-` as `-2E` and `-2D`.
fn name_part(org_id: &OrgId) -> String {
    org_id.as_str().replace('-', "-2D").replace('.', "-2E")
}

/// The database of an organization's views.
pub fn database(service_database: &str, org_id: &OrgId) -> String {
    format!("{service_database}_org_{}", name_part(org_id))
}

/// The user that runs the queries of an organization's analyst, or of the analyst of all
/// organizations.
pub fn user(org_id: Option<&OrgId>) -> String {
    org_id.map_or_else(|| ANALYST.to_owned(), |org_id| format!("{ANALYST}_{}", name_part(org_id)))
}

/// The definer of an organization's views.
pub(crate) fn definer(org_id: &OrgId) -> String {
    format!("definer_{}", name_part(org_id))
}

/// The condition of an organization's row policies.
pub(crate) fn row_filter(org_id: &OrgId) -> String {
    // Ids have no character that would have to be escaped.
    format!("org_id = '{}'", org_id.as_str())
}

/// Creates or replaces the views of these organizations.
///
/// # Errors
/// If ClickHouse refuses or does not answer. It can be repeated.
pub async fn create_views(endpoint: &Endpoint, org_ids: &[OrgId]) -> Result<(), QueryError> {
    let client = endpoint.server_client();
    for org_id in org_ids {
        for statement in views(&endpoint.database, org_id) {
            client.query_raw(&statement).execute().await?;
        }
        tracing::debug!(org_id = org_id.as_str(), "the views for analysts exist");
    }
    Ok(())
}

/// The statements that make an organization's views.
fn views(service_database: &str, org_id: &OrgId) -> Vec<String> {
    let text = ORGANIZATION_VIEWS
        .replace("{views}", &format!("`{}`", database(service_database, org_id)))
        .replace("{definer}", &format!("`{}`", definer(org_id)))
        .replace("{database}", service_database);
    let without_comments = text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
    without_comments
        .split(";\n")
        .map(|part| part.trim().trim_end_matches(';').to_owned())
        .filter(|part| !part.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_organization_has_names_of_its_own() {
        let ids = ["acme", "a.b", "a-b", "a_b", "a-2Eb", "a-2Db", "A.B"].map(|id| OrgId::parse(id).unwrap());
        let names: std::collections::BTreeSet<String> = ids.iter().map(|id| database("tallyhouse", id)).collect();
        assert_eq!(names.len(), ids.len());
        assert_eq!(database("tallyhouse", &ids[1]), "tallyhouse_org_a-2Eb");
        assert_eq!((user(Some(&ids[2])), user(None)), ("analyst_a-2Db".to_owned(), "analyst".to_owned()));
    }

    #[test]
    fn the_views_of_an_organization_read_as_its_definer_and_name_every_table() {
        let org_id = OrgId::parse("acme").unwrap();
        let made = views("tallyhouse", &org_id);
        assert_eq!(made[0], "CREATE DATABASE IF NOT EXISTS `tallyhouse_org_acme`");
        assert_eq!(made.len(), 1 + TABLES.len());
        for view in &made[1..] {
            assert!(view.contains("DEFINER = `definer_acme` SQL SECURITY DEFINER"), "{view}");
            assert!(!view.contains("getSetting") && !view.contains('{'), "{view}");
        }
        for table in TABLES {
            assert!(made.iter().any(|view| view.contains(&format!("FROM tallyhouse.{table} "))), "{table}");
        }
    }
}
