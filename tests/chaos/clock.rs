//! The service's wall clock, in the simulator's hands. The service's binary is
//! untouched: a library made from `clock.c` is preloaded into its process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

/// Makes the library. `cc` is there: Rust links with it.
pub(crate) fn build(dir: &Path) -> Result<PathBuf> {
    let library = dir.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/clock.c");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"]).arg(&library).arg(source);
    ensure!(command.status().context("cc does not start")?.success(), "the clock does not compile");
    Ok(library)
}

/// One clock.
pub(crate) struct Clock {
    pub(crate) library: PathBuf,
    pub(crate) path: PathBuf,
    file: File,
    offset_nanos: AtomicI64,
}

impl Clock {
    /// A clock that shows this time now, in milliseconds since 1970.
    pub(crate) fn at(library: &Path, path: PathBuf, millis: i64) -> Result<Self> {
        let real = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?;
        let file = File::create(&path)?;
        let clock = Self { library: library.to_owned(), path, file, offset_nanos: AtomicI64::new(0) };
        clock.step_nanos(millis * 1_000_000 - real)?;
        Ok(clock)
    }

    /// Sets it forward or back.
    pub(crate) fn step(&self, seconds: i64) -> Result<()> {
        self.step_nanos(seconds * 1_000_000_000)
    }

    fn step_nanos(&self, nanos: i64) -> Result<()> {
        let offset = self.offset_nanos.fetch_add(nanos, Ordering::SeqCst) + nanos;
        Ok(self.file.write_all_at(&offset.to_le_bytes(), 0)?)
    }
}
