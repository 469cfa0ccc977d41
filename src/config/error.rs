//! What is wrong with a configuration.

use std::path::PathBuf;

/// An error in the configuration. Names the setting.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not TOML, names an unknown setting, or has a wrong type.
    #[error("the configuration file {path} is wrong: {source}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// A value is out of its bounds.
    #[error("the setting {setting} {message}")]
    OutOfBounds {
        /// The setting.
        setting: &'static str,
        /// What is allowed.
        message: String,
    },
}
