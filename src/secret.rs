//! Creates random secrets, and keeps them in the data directory, readable by the service's user only.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use crate::config::Secret;

/// Reads the secret in a file, or creates a random one.
pub(crate) fn read_or_make_secret(path: &Path) -> io::Result<Secret> {
    match std::fs::read_to_string(path) {
        Ok(secret) => Ok(Secret::new(secret.trim_end().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_secret(path),
        Err(error) => Err(error),
    }
}

/// Makes a secret. A crash leaves the whole of it or nothing.
fn make_secret(path: &Path) -> io::Result<Secret> {
    let secret = hex(&rand::random::<[u8; 32]>());
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)?;
    Ok(Secret::new(secret))
}

/// Bytes as text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
