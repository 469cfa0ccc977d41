//! Which settings of the event pipeline go together.

use super::{Config, ConfigError};
use crate::domain::OrgId;

/// The Redis of a service that names none.
const DEFAULT_REDIS_URL: &str = "redis://127.0.0.1:6379/";

impl Config {
    /// Whether the pipeline is served.
    pub fn has_pipeline(&self) -> bool {
        self.pipeline.is_on(false)
    }

    /// The Redis of the pipeline.
    pub fn redis_url(&self) -> &str {
        match self.redis_url.expose() {
            "" => DEFAULT_REDIS_URL,
            url => url,
        }
    }

    /// What would not do what it says.
    pub(super) fn check_pipeline(&self) -> Result<(), ConfigError> {
        let wrong = |setting, message: &str| Err(ConfigError::OutOfBounds { setting, message: message.to_owned() });
        if OrgId::parse(&self.pipeline_org_id).is_none() {
            return wrong("pipeline_org_id", OrgId::EXPECTED);
        }
        if self.pipeline_backoff_ms_min > self.pipeline_backoff_ms_max {
            return wrong("pipeline_backoff_ms_min", "must not be more than pipeline_backoff_ms_max");
        }
        let has_scheme =
            ["redis://", "redis+unix://", "unix://"].iter().any(|scheme| self.redis_url().starts_with(scheme));
        if !has_scheme {
            return wrong("redis_url", "must be a redis:// URL");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigArgs, Secret, Switch};
    use super::*;

    #[test]
    fn settings_that_do_not_go_together_are_named() {
        let check = |args: ConfigArgs, name: Option<&str>| {
            let error = Config::load(args, None).err().map(|error| error.to_string());
            assert_eq!(error.as_deref().is_some(), name.is_some(), "{error:?}");
            assert!(error.is_none_or(|error| error.contains(name.unwrap_or_default())));
        };
        check(ConfigArgs { pipeline: Some(Switch::On), ..ConfigArgs::default() }, None);
        check(ConfigArgs { pipeline_org_id: Some("a b".to_owned()), ..ConfigArgs::default() }, Some("pipeline_org_id"));
        let backoff = ConfigArgs { pipeline_backoff_ms_max: Some(1), ..ConfigArgs::default() };
        check(backoff, Some("pipeline_backoff_ms_min"));
        let url = ConfigArgs { redis_url: Some(Secret::new("http://a".to_owned())), ..ConfigArgs::default() };
        check(url, Some("redis_url"));
    }

    #[test]
    fn the_pipeline_is_off_unless_somebody_says_otherwise() {
        assert!(!Config::default().has_pipeline());
        assert!(Config { pipeline: Switch::On, ..Config::default() }.has_pipeline());
        assert_eq!(Config::default().redis_url(), DEFAULT_REDIS_URL);
    }
}
