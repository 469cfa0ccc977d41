//! Checks which settings of authentication can be combined.

use std::net::{IpAddr, SocketAddr};

use super::{Config, ConfigArgs, ConfigError};
use crate::domain::OrgId;

/// Longest name of a claim, in bytes.
const CLAIM_BYTES_MAX: usize = 256;

impl ConfigArgs {
    /// Refuses empty keys, for example from an unset variable: they must not turn off
    /// authentication.
    pub(super) fn check_keys_are_not_empty(&self) -> Result<(), ConfigError> {
        let secret = self.auth_hs256_secret.as_ref().map(|secret| secret.expose());
        for (setting, value) in [
            ("auth_hs256_secret", secret),
            ("auth_jwks_file", self.auth_jwks_file.as_deref()),
            ("auth_jwks_url", self.auth_jwks_url.as_deref()),
        ] {
            if value.is_some_and(str::is_empty) {
                let message = "must not be empty: leave it out to run without authentication".to_owned();
                return Err(ConfigError::OutOfBounds { setting, message });
            }
        }
        Ok(())
    }
}

impl Config {
    /// Refuses combinations that are less safe than they seem.
    pub(super) fn check_authentication(&self) -> Result<(), ConfigError> {
        let wrong = |setting, message: String| Err(ConfigError::OutOfBounds { setting, message });
        let given = self.key_settings();
        if let [first, second, ..] = given[..] {
            return wrong(second, format!("must not be given together with {first}: keys come from one place"));
        }
        self.auth_hs256_secret.check_can_sign("auth_hs256_secret")?;
        if !self.auth_jwks_url.is_empty() && !is_private_way(&self.auth_jwks_url) {
            let message = "must be an https:// URL (http:// only on this machine): whoever can change the answer on \
                           its way can make tokens";
            return wrong("auth_jwks_url", message.to_owned());
        }
        for (setting, names) in
            [("auth_org_claim", vec![&*self.auth_org_claim]), ("auth_scope_claims", self.scope_claims())]
        {
            if !names.iter().all(|name| is_claim_name(name)) {
                let message =
                    format!("must name claims: 1 to {CLAIM_BYTES_MAX} visible ASCII characters without quotes");
                return wrong(setting, message);
            }
        }
        if given.is_empty() {
            let default = Self::default();
            for (setting, value, default) in [
                ("auth_issuer", &self.auth_issuer, &default.auth_issuer),
                ("auth_audience", &self.auth_audience, &default.auth_audience),
                ("auth_org_claim", &self.auth_org_claim, &default.auth_org_claim),
                ("auth_scope_claims", &self.auth_scope_claims, &default.auth_scope_claims),
            ] {
                if value != default {
                    let message = "needs auth_hs256_secret, auth_jwks_file or auth_jwks_url: without keys no token is \
                                   looked at";
                    return wrong(setting, message.to_owned());
                }
            }
        }
        Ok(())
    }

    /// The claims that name scopes, in their order.
    pub fn scope_claims(&self) -> Vec<&str> {
        self.auth_scope_claims.split(',').map(str::trim).collect()
    }

    /// Checks the settings of cursors and the operator.
    pub(super) fn check_tenancy(&self) -> Result<(), ConfigError> {
        self.cursor_secret.check_can_sign("cursor_secret")?;
        self.analyst_secret.check_can_sign("analyst_secret")?;
        if !self.sql_listen.is_empty() && self.sql_address().is_none() {
            let message = "must be an address and a port, such as 127.0.0.1:8123".to_owned();
            return Err(ConfigError::OutOfBounds { setting: "sql_listen", message });
        }
        if !self.operator_org_id.is_empty() && self.operator().is_none() {
            let message = OrgId::EXPECTED.to_owned();
            return Err(ConfigError::OutOfBounds { setting: "operator_org_id", message });
        }
        Ok(())
    }

    /// The address for analysts, if one is configured.
    pub fn sql_address(&self) -> Option<SocketAddr> {
        self.sql_listen.parse().ok()
    }

    /// The operator's organization, if one is configured.
    pub fn operator(&self) -> Option<OrgId> {
        OrgId::parse(&self.operator_org_id)
    }

    /// The settings that were given and name keys.
    fn key_settings(&self) -> Vec<&'static str> {
        [
            ("auth_hs256_secret", self.auth_hs256_secret.expose()),
            ("auth_jwks_file", &*self.auth_jwks_file),
            ("auth_jwks_url", &*self.auth_jwks_url),
        ]
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(setting, _)| setting)
        .collect()
    }

    /// Whether callers require a token.
    pub fn has_authentication(&self) -> bool {
        !self.key_settings().is_empty()
    }
}

/// Names are shown to callers, in headers too.
fn is_claim_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'\'');
    (1..=CLAIM_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// Whether what is fetched from a URL cannot be changed on its way.
fn is_private_way(url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    !host.is_empty() && (url.scheme() == "https" || (url.scheme() == "http" && is_here))
}
