//! The names that one analyst's statements can use: a database and its views.

use crate::config::Config;
use crate::domain::OrgId;

/// A view, and what it takes as arguments if it takes any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub name: &'static str,
    pub parameters: &'static [&'static str],
}

const fn plain(name: &'static str) -> View {
    View { name, parameters: &[] }
}

/// The views of an organization's own analysts.
const ORGANIZATION_VIEWS: [View; 10] = [
    plain("campaign_minutes"),
    plain("custom_metrics"),
    plain("event_types"),
    plain("events"),
    plain("memberships"),
    plain("organizations"),
    plain("type_hours"),
    plain("user_days"),
    plain("user_minutes"),
    plain("users"),
];

/// Those of the analysts of all organizations, besides.
const PARAMETERIZED_VIEWS: [View; 6] = [
    View { name: "campaign_stats", parameters: &["org", "campaign", "from", "to"] },
    View { name: "daily_active_users", parameters: &["org", "from", "to"] },
    View { name: "events_of", parameters: &["org", "from", "to"] },
    View { name: "top_campaigns", parameters: &["org", "from", "to"] },
    View { name: "top_users", parameters: &["org", "from", "to"] },
    View { name: "type_stats", parameters: &["org", "from", "to"] },
];

/// The names that one analyst's statements can use.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// The analyst's name.
    pub user: String,
    /// The database as analysts call it.
    pub shown_database: String,
    /// The database as ClickHouse calls it.
    pub database: String,
    pub views: Vec<View>,
}

impl Scope {
    /// Of an organization's analyst, or of the one of all.
    pub(super) fn new(config: &Config, org_id: Option<&OrgId>) -> Self {
        let user = super::credentials::user(org_id);
        let database = &config.clickhouse_database;
        match org_id {
            Some(org_id) => Self {
                user,
                shown_database: format!("{database}_org"),
                database: crate::clickhouse::analysts::database(database, org_id),
                views: ORGANIZATION_VIEWS.to_vec(),
            },
            None => Self {
                user,
                shown_database: format!("{database}_analytics"),
                database: format!("{database}_analytics"),
                views: ORGANIZATION_VIEWS.into_iter().chain(PARAMETERIZED_VIEWS).collect(),
            },
        }
    }

    /// The view of this name in a database, in the analyst's own if none is named.
    pub(super) fn view(&self, database: Option<&str>, name: &str) -> Option<View> {
        let is_here = database.is_none_or(|database| self.is_own(database));
        self.views.iter().copied().find(|view| is_here && view.name == name)
    }

    /// Whether that is what the analyst's database is called.
    pub(super) fn is_own(&self, database: &str) -> bool {
        database == self.shown_database || database == self.database
    }
}
