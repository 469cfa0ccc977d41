//! A copy of everything acknowledged: the log, the service's own keys, the
//! ticketing catalogue and ClickHouse's tables, made while the service runs.
//!
//! The order is what makes the copy whole. An acknowledged event is in the log
//! until ClickHouse has it, so the log is copied first (`log_files`): what
//! leaves it afterwards is in ClickHouse by the time that ClickHouse is backed
//! up ([`crate::clickhouse::backup`]). What is in both is inserted once: a
//! restored segment's token names nothing that the restored tables know, so it
//! is settled without it.
//!
//! The store of deliveries is copied after the log, with the segments that are held for subscriptions
//! ([`deliveries::copy`]): what it says is not delivered yet is in those, or in the store itself.
//!
//! Not copied: idempotency keys, which last 24 hours and whose events have ids
//! that a repetition makes again; files of damaged segments, which are kept for
//! a person to look at; and the embedded ClickHouse's password.

pub mod deliveries;
mod log_files;
mod manifest;

use std::io;
use std::path::{Path, PathBuf};

pub use log_files::{UnstoredSegments, has_held_segments, unstored_segments};
pub use manifest::{Manifest, ManifestError};

use crate::deliveries::operator::STORE_FILE;
use crate::log::distrust_tokens;
use crate::private_files;

/// The directory of the log, in the data directory and in a backup.
const LOG_DIR: &str = "log";
/// Secrets that the service has made for itself, in the data directory.
const KEY_FILES: [&str; 3] = ["cursor-key", "analyst-key", "ticketing-admin-token"];
/// The ticketing catalogue's file, in the data directory and in a backup.
pub const CATALOGUE_FILE: &str = "catalogue.sqlite";
/// The store of deliveries, in the data directory and in a backup.
pub const DELIVERIES_FILE: &str = STORE_FILE;

/// Copies the log and the keys of a data directory, whose service may run.
///
/// # Errors
/// The disk's.
pub fn copy_data_dir(data_dir: &Path, backup: &Path) -> io::Result<()> {
    let log = backup.join(LOG_DIR);
    private_files::create_dir(&log)?;
    log_files::copy(&data_dir.join(LOG_DIR), &log)?;
    // After the segments: one that is stored meanwhile is held from then on.
    log_files::copy_held(&data_dir.join(LOG_DIR), &log)?;
    for name in KEY_FILES {
        copy_if_there(&data_dir.join(name), &backup.join(name))?;
    }
    Ok(())
}

/// Puts what [`copy_data_dir`] and the copies of the catalogue and of the store of deliveries have left in a backup into
/// a new data directory. Tokens of segments are not relied on from then on. Returns the number of segments.
///
/// # Errors
/// The disk's.
pub fn restore_data_dir(backup: &Path, data_dir: &Path) -> io::Result<usize> {
    let log = data_dir.join(LOG_DIR);
    private_files::create_dir(&log)?;
    log_files::copy(&backup.join(LOG_DIR), &log)?;
    log_files::copy_held(&backup.join(LOG_DIR), &log)?;
    for name in KEY_FILES.into_iter().chain([CATALOGUE_FILE, DELIVERIES_FILE]) {
        copy_if_there(&backup.join(name), &data_dir.join(name))?;
    }
    distrust_tokens(&log)
}

/// Whether a data directory holds nothing that a restore would mix with: no log and no embedded ClickHouse.
///
/// # Errors
/// The disk's.
pub fn is_unused(data_dir: &Path) -> io::Result<bool> {
    let used: [PathBuf; 2] = [data_dir.join(LOG_DIR), data_dir.join("clickhouse/data/store")];
    Ok(!used[0].try_exists()? && !used[1].try_exists()?)
}

fn copy_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match log_files::copy_file(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
