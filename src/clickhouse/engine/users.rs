//! Users, privileges and row policies of the embedded engine. Written at every start; users cannot be
//! added at run time. The file contains password hashes only.

use std::io;

use sha2::{Digest as _, Sha256};

use super::data_directory::{DataDirectorySettings, Form};
use super::xml::Xml;
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
    fn write_profile(&self, xml: &mut Xml) -> io::Result<()> {
        for (name, value) in &self.fixed {
            xml.text(name, value)?;
        }
        xml.element("constraints", |xml| {
            self.chosen.iter().try_for_each(|(name, max)| {
                xml.element(name, |xml| {
                    if let Some(max) = max {
                        xml.text("min", "1")?;
                        xml.text("max", &max.to_string())?;
                    }
                    xml.empty("changeable_in_readonly")
                })
            })
        })
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

/// A user of the file.
struct User<'a> {
    name: &'a str,
    /// None: it logs in without.
    password: Option<&'a Secret>,
    profile: &'a str,
    /// Statements.
    grants: Vec<String>,
    /// A database, and the condition of the rows that the user sees in each of [`TABLES`].
    filter: Option<(&'a str, &'a str)>,
}

impl User<'_> {
    fn write(&self, xml: &mut Xml) -> io::Result<()> {
        xml.element(self.name, |xml| {
            match self.password {
                Some(password) => {
                    xml.text("password_sha256_hex", &hex(&Sha256::digest(password.expose())))?;
                }
                None => xml.empty("no_password")?,
            }
            xml.element("networks", |xml| xml.text("ip", "127.0.0.1"))?;
            xml.text("profile", self.profile)?;
            xml.text("quota", "default")?;
            xml.element("grants", |xml| self.grants.iter().try_for_each(|grant| xml.text("query", grant)))?;
            let Some((database, filter)) = self.filter else { return Ok(()) };
            xml.element("databases", |xml| {
                xml.element(database, |xml| {
                    TABLES.iter().try_for_each(|table| xml.element(table, |xml| xml.text("filter", filter)))
                })
            })
        })
    }
}

/// The file that says it.
///
/// # Errors
/// `InvalidInput`, when the database's name cannot be the name of an element.
pub(super) fn xml(settings: &DataDirectorySettings, service_password: &Secret, form: Form) -> io::Result<String> {
    Xml::document("clickhouse", |xml| {
        xml.comment(" Written by tallyhouse at every start. ")?;
        xml.element("profiles", |xml| write_profiles(xml, &settings.analysts))?;
        xml.element("quotas", |xml| xml.empty("default"))?;
        xml.element("users", |xml| {
            write_own_users(xml, &settings.database, service_password)?;
            write_analysts(xml, &settings.database, &settings.analysts)?;
            match form {
                Form::Library => write_starter(xml),
                Form::Server => Ok(()),
            }
        })
    })
}

fn write_profiles(xml: &mut Xml, analysts: &Analysts) -> io::Result<()> {
    xml.empty("default")?;
    xml.element("starter", |xml| xml.text("max_sessions_for_user", "1"))?;
    xml.element("reader", |xml| {
        xml.comment(" It may set what a query is to be run with, and change nothing else. ")?;
        xml.text("readonly", "2")
    })?;
    xml.element("analyst", |xml| analysts.write_profile(xml))
}

fn write_own_users(xml: &mut Xml, database: &str, service_password: &Secret) -> io::Result<()> {
    xml.comment(" The service, and the definer of the analysts' views. It needs no file, no URL, no other database. ")?;
    let grants = vec![
        format!("GRANT ALL ON {database}.*"),
        format!("GRANT ALL ON {database}_*.*"),
        "GRANT SELECT ON system.*".to_owned(),
        "GRANT TABLE ENGINE ON *".to_owned(),
        "GRANT SET DEFINER ON *".to_owned(),
        "GRANT CREATE TEMPORARY TABLE, KILL QUERY, SYSTEM FLUSH LOGS ON *.*".to_owned(),
    ];
    let password_of = |user: &str| password(user, service_password);
    let service = password_of(SERVICE_USER);
    User { name: SERVICE_USER, password: Some(&service), profile: "default", grants, filter: None }.write(xml)?;
    xml.comment(
        " The service, when it answers an organization: it sees that organization's rows, whatever the query says. ",
    )?;
    let reader = password_of(READER_USER);
    User {
        name: READER_USER,
        password: Some(&reader),
        profile: "reader",
        grants: grants_on_tables(database),
        filter: Some((database, READER_FILTER)),
    }
    .write(xml)
}

fn write_analysts(xml: &mut Xml, database: &str, analysts: &Analysts) -> io::Result<()> {
    xml.comment(
        " Analysts, as whom the service runs their statements. Those of one organization read views whose definer sees \
         that organization's rows only. ",
    )?;
    let all = analysts::user(None);
    write_analyst(xml, &all, &analysts.key.engine_password(&all), &format!("{database}_analytics"))?;
    for org_id in &analysts.orgs {
        write_definer(xml, org_id, database)?;
        let user = analysts::user(Some(org_id));
        write_analyst(xml, &user, &analysts.key.engine_password(&user), &analysts::database(database, org_id))?;
    }
    Ok(())
}

/// A user who may read one database of views.
fn write_analyst(xml: &mut Xml, name: &str, password: &Secret, views: &str) -> io::Result<()> {
    let grants = vec![format!("GRANT SELECT ON `{views}`.*")];
    User { name, password: Some(password), profile: "analyst", grants, filter: None }.write(xml)
}

/// The user that the views of an organization read as. Nobody has its password.
fn write_definer(xml: &mut Xml, org_id: &OrgId, database: &str) -> io::Result<()> {
    let password = Secret::new(hex(&rand::random::<[u8; 32]>()));
    User {
        name: &analysts::definer(org_id),
        password: Some(&password),
        profile: "analyst",
        grants: grants_on_tables(database),
        filter: Some((database, &analysts::row_filter(org_id))),
    }
    .write(xml)
}

fn grants_on_tables(database: &str) -> Vec<String> {
    TABLES.iter().map(|table| format!("GRANT SELECT ON {database}.{table}")).collect()
}

/// The library runs its first query, the one that makes it listen, as the user
/// `default` without a password. It may do no more than that, and its one
/// session is taken: nobody else can be `default`.
fn write_starter(xml: &mut Xml) -> io::Result<()> {
    let grants = ["GRANT SYSTEM LISTEN ON *.*", "GRANT READ ON FILE", "GRANT CREATE TEMPORARY TABLE ON *.*"];
    let grants = grants.map(str::to_owned).to_vec();
    User { name: "default", password: None, profile: "starter", grants, filter: None }.write(xml)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::engine::xml::elements;

    fn settings(config: &Config) -> DataDirectorySettings {
        let key = Secret::new("a secret of analysts".to_owned());
        let key = AnalystKey::open(&Config { analyst_secret: key, ..Config::default() }).unwrap();
        DataDirectorySettings::new(config, key)
    }

    fn written(config: &Config, form: Form) -> Vec<(String, String)> {
        elements(&xml(&settings(config), &Secret::new("secret".to_owned()), form).unwrap())
    }

    fn has(elements: &[(String, String)], path: &str, text: &str) -> bool {
        elements.contains(&(format!("clickhouse/{path}"), text.to_owned()))
    }

    #[test]
    fn a_server_has_no_default_user() {
        let config = Config::default();
        let library = written(&config, Form::Library);
        for (name, text) in [("no_password", ""), ("networks/ip", "127.0.0.1"), ("profile", "starter")] {
            assert!(has(&library, &format!("users/default/{name}"), text), "{name}");
        }
        assert!(written(&config, Form::Server).iter().all(|(path, _)| !path.starts_with("clickhouse/users/default")));
    }

    #[test]
    fn nobody_but_the_starter_goes_without_a_password() {
        let secret = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
        for config in [Config::default(), Config { auth_hs256_secret: secret, ..Config::default() }] {
            assert!(written(&config, Form::Server).iter().all(|(path, _)| !path.ends_with("/no_password")));
        }
    }

    #[test]
    fn an_organization_with_a_dot_in_its_id_has_names_that_are_names_in_xml() {
        let config = Config { analyst_orgs: "a.b,c-d".parse().unwrap(), ..Config::default() };
        let written = written(&config, Form::Server);
        let filter = "users/definer_a-2Eb/databases/tallyhouse/events/filter";
        assert!(has(&written, filter, "org_id = 'a.b'"));
        assert!(has(&written, "users/analyst_a-2Eb/grants/query", "GRANT SELECT ON `tallyhouse_org_a-2Eb`.*"));
        assert!(has(&written, "users/analyst_c-2Dd/profile", "analyst"));
        assert!(written.iter().all(|(path, _)| !path.contains("_a.b")));
    }

    #[test]
    fn nothing_that_is_configured_becomes_another_user_or_setting() {
        let markup = "1</max_threads></analyst></profiles><users><evil/></users>";
        let mut settings = settings(&Config::default());
        settings.analysts.fixed = vec![("max_threads", markup.to_owned())];
        let secret = Secret::new("secret".to_owned());
        let written = elements(&xml(&settings, &secret, Form::Server).unwrap());
        assert!(has(&written, "profiles/analyst/max_threads", markup));
        assert!(written.iter().all(|(path, _)| !path.contains("evil")));

        settings.database = "x><evil".to_owned();
        assert_eq!(xml(&settings, &secret, Form::Server).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn each_user_has_a_password_of_its_own() {
        let of = |user: &str| password(user, &Secret::new("secret".to_owned())).expose().to_owned();
        assert_eq!(of(SERVICE_USER), "secret");
        assert_ne!(of(READER_USER), "secret");
    }
}
