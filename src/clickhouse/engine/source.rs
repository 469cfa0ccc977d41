//! Selects the ClickHouse to run: a named program, the one on the PATH, or the library.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::data_directory::Form;
use super::fetch::{FetchError, Fetcher};
use crate::config::Config;

/// The oldest release that is run: older ones lack what the tables and views
/// are made of.
const MAJOR_VERSION_MIN: u32 = 25;
/// Longest a program may take to say its version.
const VERSION_WAIT_MAX: Duration = Duration::from_secs(10);

/// A ClickHouse to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The downloaded library.
    Library(PathBuf),
    /// A `clickhouse` program.
    Binary(PathBuf),
}

/// Why there is no ClickHouse to run.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The program of the settings is of no use.
    #[error("the setting clickhouse_binary names {path}, which {problem}")]
    Binary {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The library cannot be installed.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl Source {
    pub(super) const fn form(&self) -> Form {
        match self {
            Self::Library(_) => Form::Library,
            Self::Binary(_) => Form::Server,
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Library(path) | Self::Binary(path) => path,
        }
    }

    /// Selects one, and downloads the library if there is no other.
    pub(super) async fn find(config: &Config) -> Result<Self, SourceError> {
        if !config.clickhouse_binary.is_empty() {
            let path = PathBuf::from(&config.clickhouse_binary);
            check_version(&path).await.map_err(|problem| SourceError::Binary { path: path.clone(), problem })?;
            return Ok(Self::Binary(path));
        }
        if let Some(path) = binary_on(std::env::var_os("PATH").as_deref()) {
            match check_version(&path).await {
                Ok(()) => return Ok(Self::Binary(path)),
                Err(problem) => {
                    tracing::info!(path = %path.display(), problem, "ignored a ClickHouse on the PATH")
                }
            }
        }
        let interrupt = CancellationToken::new();
        let fetcher = Fetcher::new(&config.engine_cache_dir, interrupt.clone())?;
        let _interrupt_when_dropped = interrupt.drop_guard();
        let library = tokio::task::spawn_blocking(move || fetcher.library()).await;
        Ok(Self::Library(library.map_err(|_| FetchError::Interrupted)??))
    }
}

fn binary_on(path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|dir| dir.join("clickhouse")).find(|file| file.is_file())
}

async fn check_version(binary: &Path) -> Result<(), String> {
    let mut command = Command::new(binary);
    command.args(["local", "--version"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(VERSION_WAIT_MAX, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("cannot be run: {error}")),
        Err(_) => return Err("does not say its version".to_owned()),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    match major_version(&text) {
        Some(major) if major >= MAJOR_VERSION_MIN => Ok(()),
        Some(_) => Err(format!("is too old ({}): {MAJOR_VERSION_MIN} or later is needed", text.trim())),
        None => Err("does not say its version".to_owned()),
    }
}

/// The first number of the first word like `25.8.1.3994`.
fn major_version(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| {
        let (major, rest) = word.split_once('.')?;
        rest.starts_with(|c: char| c.is_ascii_digit()).then(|| major.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_clickhouse_prints() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(major_version(text), expected, "{text}");
        check("ClickHouse local version 26.7.2.1 (official build).", Some(26));
        check("ClickHouse server version 18.16.1.", Some(18));
        check("25.3.1.1\n", Some(25));
        check("Use one of the following commands:\nclickhouse local [args]", None);
        check("", None);
    }

    fn program(dir: &Path, version: &str) -> PathBuf {
        let path = dir.join("clickhouse");
        let text = format!("#!/bin/sh\necho 'ClickHouse local version {version} (official build).'\n");
        // Written by another process: a file that a thread of this one has
        // open, while another thread forks, is "busy" to whoever runs it.
        let write = "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"";
        let status = std::process::Command::new("sh").args(["-c", write, "sh", &text]).arg(&path).status().unwrap();
        assert!(status.success());
        path
    }

    #[tokio::test]
    async fn a_program_is_run_only_when_it_is_new_enough() {
        let dir = tempfile::tempdir().unwrap();
        let named = |path: &Path| Config { clickhouse_binary: path.display().to_string(), ..Config::default() };
        let new = program(dir.path(), "25.8.1.3994");
        assert_eq!(Source::find(&named(&new)).await.unwrap(), Source::Binary(new));
        let old = program(dir.path(), "18.16.1.0");
        let error = Source::find(&named(&old)).await.unwrap_err().to_string();
        assert!(error.contains("clickhouse_binary") && error.contains("18.16.1.0"), "{error}");
        let error = Source::find(&named(&dir.path().join("none"))).await.unwrap_err().to_string();
        assert!(error.contains("clickhouse_binary") && error.contains("cannot be run"), "{error}");
    }

    #[test]
    fn the_first_program_on_the_path_counts() {
        let (empty, first, second) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let expected = program(first.path(), "25.8.1.1");
        program(second.path(), "25.8.1.1");
        let path = std::env::join_paths([empty.path(), first.path(), second.path()]).unwrap();
        assert_eq!(binary_on(Some(&path)), Some(expected));
        assert_eq!(binary_on(Some(empty.path().as_os_str())), None);
        assert_eq!(binary_on(None), None);
    }
}
