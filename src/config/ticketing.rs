//! Checks which settings of the ticketing catalogue can be combined.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Config, ConfigError};
use crate::domain::OrgId;

/// On, off, or the default of the command.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Switch {
    /// Not set.
    #[default]
    Unset,
    /// On.
    On,
    /// Off.
    Off,
}

impl Switch {
    /// Whether it is on; `usually` if it is not set.
    pub const fn is_on(self, usually: bool) -> bool {
        match self {
            Self::Unset => usually,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl From<bool> for Switch {
    fn from(is_on: bool) -> Self {
        if is_on { Self::On } else { Self::Off }
    }
}

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Ok(Self::Unset),
            "true" => Ok(Self::On),
            "false" => Ok(Self::Off),
            _ => Err("must be true or false"),
        }
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unset => "\"\"",
            Self::On => "true",
            Self::Off => "false",
        })
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor;

        impl Visitor<'_> for SwitchVisitor {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E: Error>(self, is_on: bool) -> Result<Switch, E> {
                Ok(is_on.into())
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Switch, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(SwitchVisitor)
    }
}

impl Config {
    /// Whether the catalogue is served.
    pub fn has_ticketing(&self) -> bool {
        self.ticketing.is_on(!self.ticketing_listen.is_empty())
    }

    /// The catalogue's own address, if it has one.
    pub fn ticketing_listen(&self) -> Option<SocketAddr> {
        self.ticketing_listen.parse().ok().filter(|_| self.has_ticketing())
    }

    /// The tokens of administrators, each once or more.
    pub fn ticketing_admin_tokens(&self) -> Vec<&str> {
        let tokens = self.ticketing_admin_tokens.expose().split(',');
        tokens.map(str::trim).filter(|token| !token.is_empty()).collect()
    }

    /// Checks the settings of the ticketing catalogue.
    pub(super) fn check_ticketing(&self) -> Result<(), ConfigError> {
        let wrong = |setting, message: &str| Err(ConfigError::OutOfBounds { setting, message: message.to_owned() });
        let has_address = !self.ticketing_listen.is_empty();
        if has_address && self.ticketing_listen.parse::<SocketAddr>().is_err() {
            return wrong("ticketing_listen", "must be an address and a port, such as 127.0.0.1:8081");
        }
        if has_address && self.ticketing == Switch::Off {
            return wrong("ticketing_listen", "must not be given together with ticketing = false");
        }
        let (url, secret) = (self.ticketing_webhook_url.expose(), self.ticketing_webhook_secret.expose());
        if url.is_empty() != secret.is_empty() {
            let missing = if url.is_empty() { "ticketing_webhook_url" } else { "ticketing_webhook_secret" };
            return wrong(missing, "is required: webhooks are sent to a URL and signed with a secret");
        }
        let database = self.ticketing_database_url.expose();
        if !database.is_empty() && !["postgres://", "postgresql://"].iter().any(|scheme| database.starts_with(scheme)) {
            return wrong("ticketing_database_url", "must be a postgres:// URL");
        }
        if OrgId::parse(&self.ticketing_org_id).is_none() {
            return wrong("ticketing_org_id", OrgId::EXPECTED);
        }
        if self.ticketing_notify_backoff_ms_min > self.ticketing_notify_backoff_ms_max {
            return wrong("ticketing_notify_backoff_ms_min", "must not be more than ticketing_notify_backoff_ms_max");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigArgs, Secret};

    #[test]
    fn settings_that_do_not_go_together_are_named() {
        let check = |args: ConfigArgs, name: Option<&str>| {
            let error = Config::load(args, None).err().map(|error| error.to_string());
            match (error, name) {
                (None, None) => {}
                (Some(error), Some(name)) => assert!(error.contains(name), "{error}"),
                (error, name) => panic!("{error:?} {name:?}"),
            }
        };
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let text = |text: &str| Some(text.to_owned());
        check(ConfigArgs { ticketing_listen: text("127.0.0.1:0"), ..ConfigArgs::default() }, None);
        check(ConfigArgs { ticketing_listen: text("8081"), ..ConfigArgs::default() }, Some("ticketing_listen"));
        let off = Some(Switch::Off);
        let listens = ConfigArgs { ticketing: off, ticketing_listen: text("127.0.0.1:0"), ..ConfigArgs::default() };
        check(listens, Some("ticketing_listen"));
        let url = || ConfigArgs { ticketing_webhook_url: secret("https://a.example/"), ..ConfigArgs::default() };
        check(url(), Some("ticketing_webhook_secret"));
        check(ConfigArgs { ticketing_webhook_secret: secret("whsec_YQ=="), ..url() }, None);
        let only = ConfigArgs { ticketing_webhook_secret: secret("whsec_YQ=="), ..ConfigArgs::default() };
        check(only, Some("ticketing_webhook_url"));
        let mysql = ConfigArgs { ticketing_database_url: secret("mysql://a"), ..ConfigArgs::default() };
        check(mysql, Some("ticketing_database_url"));
        check(ConfigArgs { ticketing_org_id: text("a b"), ..ConfigArgs::default() }, Some("ticketing_org_id"));
        let backoff = ConfigArgs { ticketing_notify_backoff_ms_max: Some(1), ..ConfigArgs::default() };
        check(backoff, Some("ticketing_notify_backoff_ms_min"));
    }

    #[test]
    fn the_catalogue_is_served_when_somebody_says_so() {
        let served = |ticketing: Switch, listen: &str| {
            Config { ticketing, ticketing_listen: listen.to_owned(), ..Config::default() }.has_ticketing()
        };
        assert!(!served(Switch::Unset, ""));
        assert!(served(Switch::Unset, "127.0.0.1:0"));
        assert!(served(Switch::On, ""));
        assert!(!served(Switch::Off, ""));
        assert_eq!(
            [("true", Switch::On), ("false", Switch::Off), ("", Switch::Unset)].map(|(text, _)| text.parse()),
            [Ok(Switch::On), Ok(Switch::Off), Ok(Switch::Unset)]
        );
        assert!("1".parse::<Switch>().is_err());
    }

    #[test]
    fn tokens_are_separated_by_commas() {
        let tokens = Secret::new(" a, b,,".to_owned());
        let config = Config { ticketing_admin_tokens: tokens, ..Config::default() };
        assert_eq!(config.ticketing_admin_tokens(), ["a", "b"]);
    }
}
