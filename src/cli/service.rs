//! `tallyhouse dev`, `serve` and `migrate`: read the settings. What they do
//! with them is in [`crate::server`].

use std::path::PathBuf;

use crate::config::{Config, ConfigArgs, ConfigError};

/// The settings of a service.
#[derive(clap::Args)]
pub struct ServiceArgs {
    /// A TOML file of settings. The command line and the environment win over
    /// it.
    #[arg(long, env = "TALLYHOUSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: ConfigArgs,
}

impl ServiceArgs {
    /// Reads and checks the whole configuration.
    pub fn config(self) -> Result<Config, ConfigError> {
        Config::load(self.settings, self.config.as_deref())
    }
}
