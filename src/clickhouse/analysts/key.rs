//! Derives the passwords of analysts from one secret, so that none is stored.

use std::io;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::{Config, Secret};
use crate::secret::{hex, read_or_make_secret};

/// The file in the data directory that keeps the secret, where none is configured.
const KEY_FILE: &str = "analyst-key";

/// The key that passwords of analysts are derived from.
#[derive(Clone)]
pub struct AnalystKey {
    keyed: Hmac<Sha256>,
}

impl std::fmt::Debug for AnalystKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnalystKey(…)")
    }
}

impl AnalystKey {
    /// Opens the configured secret, or the one in the data directory, which is created if it is
    /// missing.
    ///
    /// # Errors
    /// If the file can be neither read nor created.
    pub fn open(config: &Config) -> io::Result<Self> {
        if !config.analyst_secret.expose().is_empty() {
            return Self::new(&config.analyst_secret);
        }
        std::fs::create_dir_all(&config.data_dir)?;
        let path = config.data_dir.join(KEY_FILE);
        let secret = read_or_make_secret(&path);
        Self::new(&secret.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?)
    }

    fn new(secret: &Secret) -> io::Result<Self> {
        let secret = secret.expose().as_bytes();
        let keyed = Hmac::new_from_slice(secret).ok().filter(|_| !secret.is_empty());
        keyed.map(|keyed| Self { keyed }).ok_or_else(|| io::Error::other("the secret of analysts is empty"))
    }

    /// The password of an analyst for the gateway. It is not valid in ClickHouse.
    pub fn gateway_password(&self, user: &str) -> Secret {
        self.password("gateway", user)
    }

    /// The password with which the service runs the analyst's queries in ClickHouse. The analyst
    /// does not know it.
    pub fn engine_password(&self, user: &str) -> Secret {
        self.password("engine", user)
    }

    fn password(&self, purpose: &str, user: &str) -> Secret {
        let mut keyed = self.keyed.clone();
        keyed.update(purpose.as_bytes());
        keyed.update(b":");
        keyed.update(user.as_bytes());
        Secret::new(hex(&keyed.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_by_user_and_by_purpose_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let key = AnalystKey::open(&config).unwrap();
        let passwords = [
            key.gateway_password("analyst_a"),
            key.gateway_password("analyst_b"),
            key.engine_password("analyst_a"),
            key.engine_password("analyst_b"),
        ];
        let distinct: std::collections::BTreeSet<&str> = passwords.iter().map(Secret::expose).collect();
        assert_eq!(distinct.len(), 4);
        assert_eq!(AnalystKey::open(&config).unwrap().gateway_password("analyst_a").expose(), passwords[0].expose());
        let secret = Secret::new("another secret, of the configuration".to_owned());
        let configured = AnalystKey::open(&Config { analyst_secret: secret, ..config }).unwrap();
        assert_ne!(configured.gateway_password("analyst_a").expose(), passwords[0].expose());
    }
}
