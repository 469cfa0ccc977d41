//! Placeholder until the composition root is merged: the command line calls
//! these three.

use std::io::Error;

use crate::config::Config;

/// Runs the service with an embedded ClickHouse, on loopback.
pub async fn run_dev(_config: Config) -> Result<(), Error> {
    Err(Error::other("not built in here"))
}

/// Runs the service against a ClickHouse server.
pub async fn run_serve(_config: Config) -> Result<(), Error> {
    Err(Error::other("not built in here"))
}

/// Brings the tables of a ClickHouse server up to date.
pub async fn run_migrate(_config: Config) -> Result<(), Error> {
    Err(Error::other("not built in here"))
}
