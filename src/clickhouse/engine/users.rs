//! Who may do what in the embedded engine. Written at every start; nobody can
//! be added at run time.

use sha2::{Digest as _, Sha256};

use super::home::{Form, HomeSettings};
use crate::config::{Config, Secret};
use crate::domain::OrgId;
use crate::secret::hex;

/// The user that the service works as.
pub(super) const SERVICE_USER: &str = "tallyhouse";
/// The user that answers are read as.
pub(super) const READER_USER: &str = "tallyhouse_reader";
/// The user who reads the views of all organisations.
const ANALYST: &str = "analyst";

/// What the reader sees, in each of these tables: the rows of the organisation
/// that is named with the query. (Of the settings that a query can carry,
/// `log_comment` is the one that means nothing to ClickHouse.) Without it,
/// there are none.
const READER_TABLES: [&str; 10] = [
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
const READER_FILTER: &str = "org_id = getSetting('log_comment')";

/// The analysts of an engine.
#[derive(Clone, Debug)]
pub(super) struct Analysts {
    /// Each of these organisations has an analyst of its own.
    orgs: Vec<OrgId>,
    /// Whoever is on this machine may read everything: there is no
    /// authentication anywhere.
    are_trusted: bool,
}

impl Analysts {
    pub(super) fn new(config: &Config) -> Self {
        Self { orgs: config.analyst_orgs.0.clone(), are_trusted: !config.has_authentication() }
    }
}

/// The name of an organisation's analyst; of none in particular, the one who
/// reads all.
pub(super) fn analyst(org_id: Option<&OrgId>) -> String {
    org_id.map_or_else(|| ANALYST.to_owned(), |org_id| format!("{ANALYST}_{}", org_id.as_str()))
}

/// A user's password: made of the service's, from which it follows, but not the
/// other way.
pub(super) fn password(user: &str, service_password: &Secret) -> Secret {
    match user {
        SERVICE_USER => service_password.clone(),
        _ => Secret::new(hex(&Sha256::digest(format!("{user}:{}", service_password.expose())))),
    }
}

/// The file that says it.
pub(super) fn xml(settings: &HomeSettings, service_password: &Secret, form: Form) -> String {
    let database = &settings.database;
    let secret = |user: &str| {
        let sha256 = hex(&Sha256::digest(password(user, service_password).expose()));
        format!("<password_sha256_hex>{sha256}</password_sha256_hex>")
    };
    let (service_secret, reader_secret) = (secret(SERVICE_USER), secret(READER_USER));
    let analyst_secret =
        if settings.analysts.are_trusted { "<no_password/>".to_owned() } else { secret(&analyst(None)) };
    let (mut reader_grants, mut reader_filters) = (String::new(), String::new());
    for table in READER_TABLES {
        reader_grants.push_str(&format!("\n        <query>GRANT SELECT ON {database}.{table}</query>"));
        reader_filters.push_str(&format!("\n          <{table}><filter>{READER_FILTER}</filter></{table}>"));
    }
    let (mut org_profiles, mut org_users) = (String::new(), String::new());
    for org_id in &settings.analysts.orgs {
        let user = analyst(Some(org_id));
        org_profiles.push_str(&org_profile(&user, org_id));
        org_users.push_str(&org_user(&user, &secret(&user), database));
    }
    let analyst_memory_bytes_max = settings.memory_bytes_max / 4;
    let starter = match form {
        Form::Library => STARTER,
        Form::Server => "",
    };
    format!(
        "<clickhouse>
  <!-- Written by tallyhouse at every start. -->
  <profiles>
    <default/>
    <starter>
      <max_sessions_for_user>1</max_sessions_for_user>
    </starter>
    <reader>
      <!-- It may set what a query is to be run with, and change nothing else. -->
      <readonly>2</readonly>
    </reader>
    <analyst>
      <readonly>1</readonly>
      <max_execution_time>60</max_execution_time>
      <max_memory_usage>{analyst_memory_bytes_max}</max_memory_usage>
      <max_threads>1</max_threads>
      <max_concurrent_queries_for_user>8</max_concurrent_queries_for_user>
      <max_result_rows>1000000</max_result_rows>
      <max_result_bytes>268435456</max_result_bytes>
    </analyst>{org_profiles}
  </profiles>
  <quotas><default/></quotas>
  <users>
    <!-- The service, and the definer of the analysts' views. It needs no file, no URL, no other database. -->
    <{SERVICE_USER}>
      {service_secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT ALL ON {database}.*</query>
        <query>GRANT ALL ON {database}_*.*</query>
        <query>GRANT SELECT ON system.*</query>
        <query>GRANT TABLE ENGINE ON *</query>
        <query>GRANT CREATE TEMPORARY TABLE, KILL QUERY, SYSTEM FLUSH LOGS ON *.*</query>
      </grants>
    </{SERVICE_USER}>
    <!-- The service, when it answers an organisation: it sees that organisation's rows, whatever the query says. -->
    <{READER_USER}>
      {reader_secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>reader</profile>
      <quota>default</quota>
      <grants>{reader_grants}
      </grants>
      <databases>
        <{database}>{reader_filters}
        </{database}>
      </databases>
    </{READER_USER}>
    <!-- Analysts on this machine: they read the views made for them, within limits. Each further one has an
         organisation, and reads the views that show its rows only. -->
    <analyst>
      {analyst_secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>analyst</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT ON {database}_analytics.*</query>
      </grants>
    </analyst>{org_users}{starter}
  </users>
</clickhouse>
"
    )
}

/// What the analyst of an organisation can set: nothing, `log_comment`
/// included, by which the views know the organisation.
fn org_profile(user: &str, org_id: &OrgId) -> String {
    format!(
        "
    <{user}>
      <profile>analyst</profile>
      <log_comment>{}</log_comment>
    </{user}>",
        org_id.as_str()
    )
}

fn org_user(user: &str, secret: &str, database: &str) -> String {
    format!(
        "
    <{user}>
      {secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>{user}</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT ON {database}_org.*</query>
      </grants>
    </{user}>"
    )
}

/// The library runs its first query, the one that makes it listen, as the user
/// `default` without a password. It may do no more than that, and its one
/// session is taken: nobody else can be `default`.
const STARTER: &str = "
    <default>
      <no_password/>
      <networks><ip>127.0.0.1</ip></networks>
      <profile>starter</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SYSTEM LISTEN ON *.*</query>
        <query>GRANT READ ON FILE</query>
        <query>GRANT CREATE TEMPORARY TABLE ON *.*</query>
      </grants>
    </default>";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(config: &Config, form: Form) -> String {
        xml(&HomeSettings::new(config), &Secret::new("secret".to_owned()), form)
    }

    #[test]
    fn a_server_has_no_default_user() {
        let config = Config::default();
        assert!(
            written(&config, Form::Library)
                .contains("<no_password/>\n      <networks><ip>127.0.0.1</ip></networks>\n      <profile>starter")
        );
        assert!(!written(&config, Form::Server).contains("<default>"));
    }

    #[test]
    fn with_authentication_everybody_has_a_password() {
        let open = written(&Config::default(), Form::Server);
        assert!(open.contains("<no_password/>"));
        let secret = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
        let closed = written(&Config { auth_hs256_secret: secret, ..Config::default() }, Form::Server);
        assert!(!closed.contains("<no_password/>"));
    }

    #[test]
    fn each_user_has_a_password_of_its_own() {
        let of = |user: &str| password(user, &Secret::new("secret".to_owned())).expose().to_owned();
        assert_eq!(of(SERVICE_USER), "secret");
        assert_ne!(of(READER_USER), of(ANALYST));
        assert_ne!(of("analyst_a"), of("analyst_b"));
    }
}
