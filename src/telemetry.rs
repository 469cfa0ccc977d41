//! Placeholder until telemetry is merged: the command line calls this once.

use crate::config::Config;

/// Starts logs and metrics.
pub fn init(_config: &Config) -> Result<(), std::io::Error> {
    Ok(())
}
