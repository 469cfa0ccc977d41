//! The values of the settings about log lines.

use serde::Deserialize;

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Which calls have a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RequestLog {
    /// Every call, within the limit for successful calls.
    All,
    /// Calls that failed.
    Errors,
    /// None.
    None,
}
