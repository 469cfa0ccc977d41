//! The embedded ClickHouse: a separate process that starts and ends with the service.
//!
//! [`Engine::start`] selects a ClickHouse (a named program, one on the PATH, or a library from npm),
//! configures it in the data directory, and returns when it answers queries. From then on it is
//! restarted on the same port and data whenever it ends; its users see failed requests in between and
//! repeat them.
//!
//! The engine does not know the tables, and is not used for a ClickHouse server at a URL. [`super::ping`]
//! checks both.

mod block_log;
mod child;
mod data_directory;
mod fetch;
mod file_placement;
mod last_endpoint;
mod process;
mod progress;
mod sandbox;
mod source;
mod supervisor;
mod tables;
mod users;
mod xml;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use child::{ChildArgs, run_child};
pub use fetch::FetchError;
pub use last_endpoint::{backups_dir, last_endpoint};
pub use sandbox::SandboxStatus;
pub use source::SourceError;

use crate::clickhouse::analysts::AnalystKey;
use crate::config::{Config, Secret};
use data_directory::{DataDirectory, DataDirectorySettings};
use source::Source;
use supervisor::{StartError, Starter, Supervisor};

/// Attempts of a first start before it is given up.
const START_ATTEMPTS_MAX: u32 = 3;
/// Ports tried.
const PORT_ATTEMPTS_MAX: u32 = 10;

/// Settings of the engine that are not settings of the service.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// The `tallyhouse` program, which runs the engine's process.
    pub executable: PathBuf,
    /// Longest time until a process answers its first query. Then it is killed and another one is
    /// started with twice the time, up to 16 times (after a crash, ClickHouse checks its data
    /// first).
    pub start_wait_max: Duration,
    /// Longest wait for an earlier process on the same data to end.
    pub former_wait_max: Duration,
    /// Longest time for a process to shut down. Then it is killed.
    pub stop_wait_max: Duration,
    /// The first pause before an ended process is restarted; each further pause is twice as long.
    pub backoff_min: Duration,
    /// The longest such pause.
    pub backoff_max: Duration,
    /// Files and directories that the process may read, and run, besides its own
    /// and the system's.
    pub readable_paths: Vec<PathBuf>,
}

impl EngineSettings {
    /// Default settings with this `tallyhouse` program.
    pub fn with_executable(executable: PathBuf) -> Self {
        Self {
            executable,
            start_wait_max: Duration::from_secs(60),
            former_wait_max: Duration::from_secs(30),
            stop_wait_max: Duration::from_secs(10),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            readable_paths: Vec::new(),
        }
    }
}

/// The URL and the users for queries.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The URL, as in `http://127.0.0.1:8123`. It stays the same when the engine is restarted.
    pub url: String,
    /// The service's user.
    pub user: String,
    /// That user's password.
    pub password: Secret,
    /// The user that sees the rows of one organization at a time, see
    /// [`crate::clickhouse::query_store`].
    pub reader_user: String,
    /// That user's password.
    pub reader_password: Secret,
}

/// Why the engine cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No ClickHouse was found.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Another engine works in the data directory.
    #[error("the data directory {dir} is in use by another ClickHouse")]
    InUse {
        /// The engine's directory.
        dir: PathBuf,
    },
    /// ClickHouse does not start.
    #[error("ClickHouse does not start: {0}")]
    Start(String),
    /// The disk or the system failed.
    #[error("the embedded ClickHouse cannot be set up: {0}")]
    Io(#[from] io::Error),
}

/// A running engine. Dropping it ends it, without waiting for the end.
#[derive(Debug)]
pub struct Engine {
    endpoint: Endpoint,
    sandbox: SandboxStatus,
    pid: watch::Receiver<Option<u32>>,
    supervision: JoinHandle<()>,
    stop: DropGuard,
}

impl Engine {
    /// Starts the engine in `data_dir`, and returns when it answers queries.
    pub async fn start(config: &Config) -> Result<Self, EngineError> {
        Self::start_with(config, EngineSettings::with_executable(own_executable()?)).await
    }

    /// [`Engine::start`] with further settings.
    pub async fn start_with(config: &Config, settings: EngineSettings) -> Result<Self, EngineError> {
        let source = Source::find(config).await?;
        let home =
            DataDirectory::open(&config.data_dir, DataDirectorySettings::new(config, AnalystKey::open(config)?))?;
        tracing::info!(source = %source.path().display(), dir = %home.dir().display(), "starting ClickHouse");
        let starter = Starter::new(settings, source, home)?;
        let (starter, process) = first_start(starter).await?;
        let endpoint = starter.endpoint();
        tracing::info!(url = endpoint.url, pid = process.pid(), "ClickHouse answers");
        let sandbox = starter.sandbox_status();
        warn_of_gaps(sandbox);
        let stop = CancellationToken::new();
        let (supervisor, pid) = Supervisor::new(starter, process, stop.clone());
        let supervision = tokio::spawn(supervisor.run());
        Ok(Self { endpoint, sandbox, pid, supervision, stop: stop.drop_guard() })
    }

    /// The URL and the users for queries.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// How much of the engine's sandbox the kernel enforces.
    pub const fn sandbox(&self) -> SandboxStatus {
        self.sandbox
    }

    /// The id of the current process; none while it is being restarted.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// Ends the engine, and returns when its process has ended: within a tenth of a second, or up
    /// to five seconds while a connection is open.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.supervision.await {
            tracing::error!(%error, "the supervisor of ClickHouse failed");
        }
    }
}

/// Spreads the parts of the tables in this data directory. Call it again when there are new tables.
pub fn spread_parts(data_dir: &Path) {
    file_placement::spread_parts(&data_dir.join("clickhouse/data"));
}

/// This program. On Linux under a name that stays good when the file is
/// replaced by a newer one.
fn own_executable() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() }
}

/// Says what analysts' queries could reach if one of the other barriers fell.
fn warn_of_gaps(sandbox: SandboxStatus) {
    match sandbox {
        SandboxStatus::Full => tracing::info!("ClickHouse runs in a sandbox"),
        SandboxStatus::Partial => tracing::warn!(
            "ClickHouse runs in a part of its sandbox: this kernel restricts its files, but not all of its ports, \
             signals and system calls (Linux 6.12 or later does)"
        ),
        SandboxStatus::None => tracing::warn!(
            "ClickHouse runs WITHOUT a sandbox: this kernel has no Landlock. Its process can read every file that \
             the service can; what analysts ask is still checked before it gets there"
        ),
    }
}

/// Starts the first process, which is also the choice of the port.
async fn first_start(mut starter: Starter) -> Result<(Starter, process::Process), EngineError> {
    let (mut attempts, mut ports) = (0, 0);
    loop {
        let error = match starter.start(free_port()?, attempts).await {
            Ok(process) => return Ok((starter, process)),
            Err(error) => error,
        };
        match &error {
            StartError::PortTaken if ports < PORT_ATTEMPTS_MAX => ports += 1,
            StartError::PortTaken => return Err(EngineError::Start(error.to_string())),
            StartError::InUse => return Err(EngineError::InUse { dir: starter.dir().to_owned() }),
            StartError::Ended { .. } | StartError::Hung { .. } if attempts + 1 < START_ATTEMPTS_MAX => {
                attempts += 1;
                tracing::warn!(%error, "ClickHouse did not start; retrying");
            }
            StartError::Ended { .. } | StartError::Hung { .. } => return Err(EngineError::Start(error.to_string())),
            StartError::Io(_) => return Err(EngineError::Start(error.to_string())),
        }
    }
}

/// A port that nobody listens on just now.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
