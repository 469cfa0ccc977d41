//! Users, privileges and row policies of the embedded engine. Written at every start; users cannot be
//! added at run time. The file contains password hashes only.

use sha2::{Digest as _, Sha256};

use super::data_directory::{DataDirectorySettings, Form};
use crate::clickhouse::analysts::{self, AnalystKey, SETTINGS, TABLES};
use crate::config::{Config, Secret};
use crate::domain::OrgId;
use crate::secret::hex;

/// The user that the service works as.
pub(super) const SERVICE_USER: &str = "tallyhouse";
/// The user that reads on behalf of organizations.
pub(super) const READER_USER: &str = "tallyhouse_reader";

/// What the reader sees, in each of these tables: the rows of the organization
/// that is named with the query. (Of the settings that a query can carry,
/// `log_comment` is the one that means nothing to ClickHouse.) Without it,
/// there are none. It runs the service's own statements, whose text is never a
/// caller's; analysts' queries run as others.
const READER_FILTER: &str = "org_id = getSetting('log_comment')";

/// The analysts of an engine.
#[derive(Clone, Debug)]
pub(super) struct Analysts {
    /// Each of these organizations has an analyst of its own.
    orgs: Vec<OrgId>,
    /// What their passwords are made of.
    key: AnalystKey,
    /// What holds for each query, by name and value.
    fixed: Vec<(&'static str, String)>,
    /// The names of the settings that they may choose, with their bounds.
    chosen: Vec<(&'static str, Option<u64>)>,
}

impl Analysts {
    pub(super) fn new(config: &Config, key: AnalystKey) -> Self {
        Self {
            orgs: config.analyst_orgs.0.clone(),
            key,
            fixed: analysts::fixed(config),
            chosen: SETTINGS.iter().map(|setting| (setting.name, setting.bound.max(config))).collect(),
        }
    }

    /// The profile of analysts: limits, and which of them a query may change.
    fn profile(&self) -> String {
        let mut xml = String::new();
        for (name, value) in &self.fixed {
            xml.push_str(&format!("\n      <{name}>{value}</{name}>"));
        }
        xml.push_str("\n      <constraints>");
        for (name, max) in &self.chosen {
            let bounds = max.map(|max| format!("<min>1</min><max>{max}</max>")).unwrap_or_default();
            xml.push_str(&format!("\n        <{name}>{bounds}<changeable_in_readonly/></{name}>"));
        }
        xml.push_str("\n      </constraints>");
        xml
    }
}

/// A password of the service's own users: made of the service's, from which it
/// follows, but not the other way.
pub(super) fn password(user: &str, service_password: &Secret) -> Secret {
    match user {
        SERVICE_USER => service_password.clone(),
        _ => Secret::new(hex(&Sha256::digest(format!("{user}:{}", service_password.expose())))),
    }
}

fn hashed(password: &Secret) -> String {
    format!("<password_sha256_hex>{}</password_sha256_hex>", hex(&Sha256::digest(password.expose())))
}

/// The file that says it.
pub(super) fn xml(settings: &DataDirectorySettings, service_password: &Secret, form: Form) -> String {
    let database = &settings.database;
    let analysts = &settings.analysts;
    let secret = |user: &str| hashed(&password(user, service_password));
    let (service_secret, reader_secret) = (secret(SERVICE_USER), secret(READER_USER));
    let (mut reader_grants, mut reader_filters) = (String::new(), String::new());
    for table in TABLES {
        reader_grants.push_str(&format!("\n        <query>GRANT SELECT ON {database}.{table}</query>"));
        reader_filters.push_str(&format!("\n          <{table}><filter>{READER_FILTER}</filter></{table}>"));
    }
    let analyst_profile = analysts.profile();
    let all = analysts::user(None);
    let mut analyst_users =
        analyst(&all, &hashed(&analysts.key.engine_password(&all)), &format!("{database}_analytics"));
    for org_id in &analysts.orgs {
        let user = analysts::user(Some(org_id));
        let secret = hashed(&analysts.key.engine_password(&user));
        analyst_users.push_str(&definer(org_id, database));
        analyst_users.push_str(&analyst(&user, &secret, &analysts::database(database, org_id)));
    }
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
    <analyst>{analyst_profile}
    </analyst>
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
        <query>GRANT SET DEFINER ON *</query>
        <query>GRANT CREATE TEMPORARY TABLE, KILL QUERY, SYSTEM FLUSH LOGS ON *.*</query>
      </grants>
    </{SERVICE_USER}>
    <!-- The service, when it answers an organization: it sees that organization's rows, whatever the query says. -->
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
    <!-- Analysts, as whom the service runs their statements. Those of one organization read views whose definer
         sees that organization's rows only. -->{analyst_users}{starter}
  </users>
</clickhouse>
"
    )
}

/// A user who may read one database of views.
fn analyst(user: &str, secret: &str, views: &str) -> String {
    format!(
        "
    <{user}>
      {secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>analyst</profile>
      <quota>default</quota>
      <grants>
        <query>GRANT SELECT ON `{views}`.*</query>
      </grants>
    </{user}>"
    )
}

/// The user that the views of an organization read as. Nobody has its password.
fn definer(org_id: &OrgId, database: &str) -> String {
    let (user, filter) = (analysts::definer(org_id), analysts::row_filter(org_id));
    let secret = hashed(&Secret::new(hex(&rand::random::<[u8; 32]>())));
    let (mut grants, mut filters) = (String::new(), String::new());
    for table in TABLES {
        grants.push_str(&format!("\n        <query>GRANT SELECT ON {database}.{table}</query>"));
        filters.push_str(&format!("\n          <{table}><filter>{filter}</filter></{table}>"));
    }
    format!(
        "
    <{user}>
      {secret}
      <networks><ip>127.0.0.1</ip></networks>
      <profile>analyst</profile>
      <quota>default</quota>
      <grants>{grants}
      </grants>
      <databases>
        <{database}>{filters}
        </{database}>
      </databases>
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
        let key = Secret::new("a secret of analysts".to_owned());
        let key = AnalystKey::open(&Config { analyst_secret: key, ..Config::default() }).unwrap();
        xml(&DataDirectorySettings::new(config, key), &Secret::new("secret".to_owned()), form)
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
    fn nobody_but_the_starter_goes_without_a_password() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
        for config in [Config::default(), Config { auth_hs256_secret: secret, ..Config::default() }] {
            assert!(!written(&config, Form::Server).contains("<no_password/>"));
        }
    }

    #[test]
    fn an_organization_with_a_dot_in_its_id_has_names_that_are_names_in_xml() {
        let text = written(&Config { analyst_orgs: "a.b,c-d".parse().unwrap(), ..Config::default() }, Form::Server);
        for part in
            ["<analyst_a-2Eb>", "<definer_a-2Eb>", "org_id = 'a.b'", "<analyst_c-2Dd>", "`tallyhouse_org_a-2Eb`.*"]
        {
            assert!(text.contains(part), "{part}");
        }
        assert!(!text.contains("_a.b>"));
    }

    #[test]
    fn each_user_has_a_password_of_its_own() {
        let of = |user: &str| password(user, &Secret::new("secret".to_owned())).expose().to_owned();
        assert_eq!(of(SERVICE_USER), "secret");
        assert_ne!(of(READER_USER), "secret");
    }
}
