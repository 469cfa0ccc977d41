//! Identifies the caller: the analyst of an organization, or of all organizations.

use std::collections::HashMap;
use std::net::IpAddr;

use axum::http::header::{AUTHORIZATION, FORWARDED, HeaderMap, VIA};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::error::GatewayError;
use super::scope::Scope;
use crate::clickhouse::analysts::{self, AnalystKey};
use crate::config::{Config, Secret};
use crate::domain::OrgId;

/// The SQL credentials of an analyst.
#[derive(Debug)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password; none if none is required.
    pub password: Option<Secret>,
    /// The database, as analysts call it.
    pub database: String,
}

/// The credentials of an organization's analyst, or of the analyst of all organizations.
pub fn login(config: &Config, key: &AnalystKey, org_id: Option<&OrgId>) -> Login {
    let Scope { user, shown_database, .. } = Scope::new(config, org_id);
    let needs_password = org_id.is_some() || config.has_authentication();
    let password = needs_password.then(|| key.gateway_password(&user));
    Login { user, password, database: shown_database }
}

/// The user name of an analyst.
pub(super) fn user(org_id: Option<&OrgId>) -> String {
    org_id.map_or_else(|| "analyst".to_owned(), |org_id| format!("analyst_{}", org_id.as_str()))
}

/// An analyst who has logged in.
#[derive(Debug)]
pub(super) struct Principal {
    pub scope: Scope,
    /// The user in ClickHouse.
    pub engine_user: String,
    /// That user's password.
    pub engine_password: Secret,
    /// The digest of the password that is asked for; none where none is.
    password_sha256: Option<[u8; 32]>,
}

/// All analysts who can log in.
#[derive(Debug)]
pub(super) struct AnalystLogins {
    by_user: HashMap<String, std::sync::Arc<Principal>>,
}

impl AnalystLogins {
    pub(super) fn new(config: &Config, key: &AnalystKey) -> Self {
        let org_ids = config.analyst_orgs.0.iter().map(Some).chain([None]);
        let principals = org_ids.map(|org_id| {
            let Login { user, password, .. } = login(config, key, org_id);
            let engine_user = analysts::user(org_id);
            let principal = Principal {
                scope: Scope::new(config, org_id),
                engine_password: key.engine_password(&engine_user),
                engine_user,
                password_sha256: password.map(|password| Sha256::digest(password.expose()).into()),
            };
            (user, principal.into())
        });
        Self { by_user: principals.collect() }
    }

    /// The analyst whose credentials a request carries.
    ///
    /// # Errors
    /// The same for an unknown user and a wrong password.
    pub(super) fn principal(
        &self,
        headers: &HeaderMap,
        params: &[(String, String)],
        peer: IpAddr,
    ) -> Result<std::sync::Arc<Principal>, GatewayError> {
        let (user, password) = given(headers, params).ok_or_else(GatewayError::authentication)?;
        let principal = self.by_user.get(&user).ok_or_else(GatewayError::authentication)?;
        let is_good = match principal.password_sha256 {
            // Digests are compared, so the time tells nothing of the password.
            Some(expected) => <[u8; 32]>::from(Sha256::digest(password)) == expected,
            None => password.is_empty() && is_from_this_machine(headers, peer),
        };
        if is_good { Ok(std::sync::Arc::clone(principal)) } else { Err(GatewayError::authentication()) }
    }
}

/// Whether the caller is on this machine, without a proxy in between.
fn is_from_this_machine(headers: &HeaderMap, peer: IpAddr) -> bool {
    let came_through_a_proxy =
        headers.contains_key(FORWARDED) || headers.contains_key(VIA) || headers.contains_key("x-forwarded-for");
    peer.to_canonical().is_loopback() && !came_through_a_proxy
}

/// User and password, as ClickHouse's clients give them: in headers of its own,
/// as HTTP has it, or in the address.
fn given(headers: &HeaderMap, params: &[(String, String)]) -> Option<(String, String)> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let param = |name: &str| params.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    if let Some(user) = header("x-clickhouse-user") {
        return Some((user, header("x-clickhouse-key").unwrap_or_default()));
    }
    if let Some(basic) = header(AUTHORIZATION.as_str()) {
        let encoded = basic.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic"))?.1;
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        return Some((user.to_owned(), password.to_owned()));
    }
    Some((param("user")?, param("password").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn config(secret: &str) -> Config {
        Config {
            analyst_secret: Secret::new("a secret of analysts".to_owned()),
            analyst_orgs: "acme,a.b".parse().unwrap(),
            auth_hs256_secret: Secret::new(secret.to_owned()),
            ..Config::default()
        }
    }

    fn ask(config: &Config, user: &str, password: &str, peer: IpAddr) -> Option<String> {
        let logins = AnalystLogins::new(config, &AnalystKey::open(config).unwrap());
        let mut headers = HeaderMap::new();
        headers.insert("x-clickhouse-user", user.parse().unwrap());
        headers.insert("x-clickhouse-key", password.parse().unwrap());
        logins.principal(&headers, &[], peer).ok().map(|principal| principal.scope.shown_database.clone())
    }

    #[test]
    fn without_authentication_the_analyst_of_all_needs_no_password_on_this_machine() {
        let config = config("");
        assert_eq!(ask(&config, "analyst", "", HERE).as_deref(), Some("tallyhouse_analytics"));
        assert_eq!(ask(&config, "analyst", "", [192, 0, 2, 1].into()), None);
        assert_eq!(ask(&config, "analyst", "x", HERE), None);
        assert_eq!(ask(&config, "analyst_acme", "", HERE), None);
    }

    #[test]
    fn with_authentication_everybody_has_a_password() {
        let config = config("0123456789abcdef0123456789abcdef");
        let key = AnalystKey::open(&config).unwrap();
        for org in [None, Some("acme"), Some("a.b")] {
            let org_id = org.map(|org| OrgId::parse(org).unwrap());
            let login = login(&config, &key, org_id.as_ref());
            let password = login.password.unwrap();
            assert_eq!(ask(&config, &login.user, password.expose(), HERE), Some(login.database));
            assert_eq!(ask(&config, &login.user, "", HERE), None);
            // The password of ClickHouse's user is another one.
            let engine_password = key.engine_password(&analysts::user(org_id.as_ref()));
            assert_eq!(ask(&config, &login.user, engine_password.expose(), HERE), None);
        }
        assert_eq!(ask(&config, "tallyhouse", "", HERE), None);
    }

    #[test]
    fn credentials_come_in_three_ways() {
        let params = [("user".to_owned(), "a".to_owned()), ("password".to_owned(), "b".to_owned())];
        assert_eq!(given(&HeaderMap::new(), &params), Some(("a".to_owned(), "b".to_owned())));
        let mut basic = HeaderMap::new();
        basic.insert(AUTHORIZATION, format!("Basic {}", STANDARD.encode("c:d:e")).parse().unwrap());
        assert_eq!(given(&basic, &params), Some(("c".to_owned(), "d:e".to_owned())));
        assert_eq!(given(&HeaderMap::new(), &[]), None);
    }
}
