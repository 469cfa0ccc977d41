//! The endpoint at which the embedded ClickHouse of a data directory was last reached, for other processes of this program.

use std::io;
use std::path::{Path, PathBuf};

use super::{Endpoint, users};
use crate::config::Secret;

/// Where the embedded ClickHouse of a data directory was last reached, and by which users; none when there never was
/// one. Whether it runs is for [`crate::clickhouse::ping`] to find out.
///
/// # Errors
/// When its files cannot be read, as by another user of the machine.
pub fn last_endpoint(data_dir: &Path) -> io::Result<Option<Endpoint>> {
    let dir = data_dir.join("clickhouse");
    let port = match std::fs::read_to_string(dir.join("http-port")) {
        Ok(port) => port,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let password = Secret::new(std::fs::read_to_string(dir.join("password"))?.trim_end().to_owned());
    Ok(Some(Endpoint {
        url: format!("http://127.0.0.1:{}", port.trim()),
        user: users::SERVICE_USER.to_owned(),
        reader_user: users::READER_USER.to_owned(),
        reader_password: users::password(users::READER_USER, &password),
        password,
    }))
}

/// The directory below which the embedded ClickHouse reads and writes backups in files.
pub fn backups_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("clickhouse/data/backups")
}
