//! `tallyhouse token`: creates a token for development.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use super::service::ServiceArgs;
use super::time_args::parse_duration;
use crate::config::Config;
use crate::domain::OrgId;

/// The default subject of a token.
const SUBJECT: &str = "developer";
const LIFETIME: Duration = Duration::from_secs(3_600);

/// The token to create.
#[derive(clap::Args)]
pub struct TokenArgs {
    /// The organization.
    #[arg(long, value_name = "ID")]
    org: String,
    /// The scopes: any of ingest, read and admin, separated by spaces.
    #[arg(long, default_value = "ingest read", value_name = "SCOPES")]
    scope: String,
    /// The subject.
    #[arg(long, default_value = SUBJECT, value_name = "NAME")]
    subject: String,
    /// The lifetime, such as 90m or 1h30m.
    #[arg(long = "for", default_value = "1h", value_name = "DURATION", value_parser = parse_duration)]
    lifetime: Duration,
    /// A PEM file with a private key to sign with, instead of auth_hs256_secret.
    #[arg(long, value_name = "FILE", requires = "alg")]
    key: Option<PathBuf>,
    /// The algorithm of that key.
    #[arg(long, requires = "key")]
    alg: Option<KeyAlgorithm>,
    /// The key's name (kid) in the set of keys.
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    #[command(flatten)]
    service: ServiceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum KeyAlgorithm {
    #[value(name = "RS256")]
    Rs256,
    #[value(name = "ES256")]
    Es256,
    #[value(name = "EdDSA")]
    EdDsa,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    org_id: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    iss: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    aud: &'a str,
}

impl<'a> Claims<'a> {
    fn new(
        config: &'a Config,
        org_id: &'a str,
        scope: &'a str,
        sub: &'a str,
        lifetime: Duration,
    ) -> anyhow::Result<Self> {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let exp = iat.saturating_add(lifetime.as_secs());
        Ok(Self { sub, org_id, scope, iat, exp, iss: &config.auth_issuer, aud: &config.auth_audience })
    }
}

/// A token that is valid for an hour, signed with the configured secret.
///
/// # Errors
/// When there is no secret.
pub(super) fn development_token(config: &Config, org_id: &str, scope: &str) -> anyhow::Result<String> {
    let claims = Claims::new(config, org_id, scope, SUBJECT, LIFETIME)?;
    Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &secret(config)?)?)
}

impl TokenArgs {
    /// Creates the token and prints it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        ensure!(OrgId::parse(&self.org).is_some(), "--org {}", OrgId::EXPECTED);
        if let Some(unknown) = self.scope.split_whitespace().find(|name| !["ingest", "read", "admin"].contains(name)) {
            bail!("--scope: unknown scope {unknown:?}; allowed are ingest, read and admin");
        }
        let (algorithm, key) = match self.key.as_deref().zip(self.alg) {
            Some((path, algorithm)) => {
                let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                private_key(algorithm, &pem)
                    .with_context(|| format!("{} is not a key for this algorithm", path.display()))?
            }
            None => (Algorithm::HS256, None),
        };
        let Self { org, scope, subject, lifetime, kid, service, .. } = self;
        let config = service.config()?;
        let key = match key {
            Some(key) => key,
            None => secret(&config)?,
        };
        let claims = Claims::new(&config, &org, &scope, &subject, lifetime)?;
        let header = Header { kid, ..Header::new(algorithm) };
        super::print(&(jsonwebtoken::encode(&header, &claims, &key)? + "\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn secret(config: &Config) -> anyhow::Result<EncodingKey> {
    let secret = config.auth_hs256_secret.expose();
    ensure!(
        !secret.is_empty(),
        "there is nothing to sign with: set TALLYHOUSE_AUTH_HS256_SECRET as the service has it, or name a private key \
         with --key and --alg"
    );
    Ok(EncodingKey::from_secret(secret.as_bytes()))
}

fn private_key(algorithm: KeyAlgorithm, pem: &[u8]) -> anyhow::Result<(Algorithm, Option<EncodingKey>)> {
    let (algorithm, key) = match algorithm {
        KeyAlgorithm::Rs256 => (Algorithm::RS256, EncodingKey::from_rsa_pem(pem)),
        KeyAlgorithm::Es256 => (Algorithm::ES256, EncodingKey::from_ec_pem(pem)),
        KeyAlgorithm::EdDsa => (Algorithm::EdDSA, EncodingKey::from_ed_pem(pem)),
    };
    Ok((algorithm, Some(key?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_a_number_and_a_unit() {
        for (text, seconds) in [("0s", Some(0)), ("90m", Some(5_400)), ("365d", Some(31_536_000)), ("1", None)] {
            assert_eq!(parse_duration(text).ok().map(|time| time.as_secs()), seconds, "{text}");
        }
        assert!(parse_duration("").is_err() && parse_duration("-1h").is_err() && parse_duration("é").is_err());
    }
}
