//! What the operator's commands ask of a running service, which has the store of deliveries open: a copy of it, and the
//! deletion of one user.
//!
//! They ask over a Unix socket in the data directory, which only the service's user can reach: one request and one
//! response, each a line of JSON. Without a service, the commands open the store themselves.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tallyhouse_delivery::domain::Position;
use tallyhouse_delivery::engine::Engine;
use tallyhouse_delivery::store::{DeliveryStore, StoreError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::subscriptions::Subscriptions;
use crate::domain::OrgId;
use crate::log::{EventLog, LogPosition};

/// The file of all subscriptions' states in the data directory.
pub const STORE_FILE: &str = "delivery.redb";
/// The socket in the data directory.
const SOCKET_FILE: &str = "operator.sock";
/// What copies of the store in the data directory begin with.
const COPY_PREFIX: &str = "delivery-copy-";
/// Longest that subscriptions may take to read what was accepted before.
const READ_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// Longest that a request may take to arrive.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest line that is read.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum OperatorRequest {
    /// A copy of the store, in the data directory.
    CopyStore,
    /// The deletion of what subscriptions hold of a user.
    EraseUser {
        /// The user's organization.
        org_id: String,
        /// The user.
        user_id: String,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum OperatorResponse {
    /// The copy is there, under this name in the data directory. Whoever asked deletes it.
    Copied {
        /// The name.
        file: String,
    },
    /// The user's events are deleted.
    Erased {
        /// How many waited or were dead letters.
        events: u64,
    },
    /// It could not be done.
    Failed {
        /// Why.
        error: String,
    },
}

/// Asks the service that runs with a data directory. None when none does.
///
/// # Errors
/// When the service does not answer.
pub async fn ask(data_dir: &Path, request: &OperatorRequest) -> io::Result<Option<OperatorResponse>> {
    let stream = match UnixStream::connect(data_dir.join(SOCKET_FILE)).await {
        Ok(stream) => stream,
        // One that was killed leaves the file.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut stream = BufReader::new(stream);
    let line = serde_json::to_string(request).map_err(io::Error::other)? + "\n";
    stream.write_all(line.as_bytes()).await?;
    Ok(Some(read_line(&mut stream).await?))
}

async fn read_line<T: serde::de::DeserializeOwned>(stream: &mut BufReader<UnixStream>) -> io::Result<T> {
    let mut line = String::new();
    stream.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Answers the operator's commands.
pub struct OperatorSocket {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The store.
    pub store: Arc<DeliveryStore>,
    /// The subscriptions of organizations.
    pub subscriptions: Arc<Subscriptions>,
    /// The event pipeline's engine and its organization, if it is on.
    pub pipeline: Option<(OrgId, Engine)>,
    /// The log that they read.
    pub log: Arc<dyn EventLog>,
}

impl OperatorSocket {
    /// Begins to listen, until `stop`. Where that is not possible (the path of a socket can have about 100 bytes), it is
    /// logged, and the service runs without.
    pub fn start(self, tasks: &TaskTracker, stop: &CancellationToken) {
        self.delete_copies();
        match self.listen() {
            Ok(listener) => {
                let stop = stop.clone();
                tasks.spawn(async move { stop.run_until_cancelled(self.serve(listener)).await });
            }
            Err(error) => {
                tracing::warn!(%error, "operator.sock cannot be opened: `backup` and `erase` do not reach deliveries");
            }
        }
    }

    fn listen(&self) -> io::Result<UnixListener> {
        let path = self.data_dir.join(SOCKET_FILE);
        // The data directory is this process's: one that is there is a former run's.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    }

    /// Copies that nobody has taken.
    fn delete_copies(&self) {
        for file in std::fs::read_dir(&self.data_dir).into_iter().flatten().flatten() {
            if file.file_name().to_string_lossy().starts_with(COPY_PREFIX) {
                let _ = std::fs::remove_file(file.path()); // It is tried again at the next start.
            }
        }
    }

    /// One request after the other.
    async fn serve(self, listener: UnixListener) {
        loop {
            let answered = async {
                let mut stream = BufReader::new(listener.accept().await?.0);
                let request = tokio::time::timeout(REQUEST_WAIT_MAX, read_line(&mut stream)).await;
                let response = self.answer(request.map_err(io::Error::other)??).await;
                let line = serde_json::to_string(&response).map_err(io::Error::other)? + "\n";
                stream.write_all(line.as_bytes()).await
            };
            if let Err(error) = answered.await {
                tracing::warn!(%error, "an operator's command got no answer");
                tokio::time::sleep(READ_PAUSE).await;
            }
        }
    }

    async fn answer(&self, request: OperatorRequest) -> OperatorResponse {
        let answer = match request {
            OperatorRequest::CopyStore => self.copy().await.map(|file| OperatorResponse::Copied { file }),
            OperatorRequest::EraseUser { org_id, user_id } => {
                self.erase(&org_id, &user_id).await.map(|events| OperatorResponse::Erased { events })
            }
        };
        answer.unwrap_or_else(|error| OperatorResponse::Failed { error })
    }

    async fn copy(&self) -> Result<String, String> {
        let file = format!("{COPY_PREFIX}{}", Uuid::now_v7().simple());
        let (store, path) = (Arc::clone(&self.store), self.data_dir.join(&file));
        let copied = tokio::task::spawn_blocking(move || copy_store(&store, &path)).await;
        copied.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        Ok(file)
    }

    /// Waits until everything that was accepted before has been read, and deletes what is held of the user.
    async fn erase(&self, org_id: &str, user_id: &str) -> Result<u64, String> {
        let LogPosition { segment, row } = self.log.end().await;
        let end = Position { segment, row };
        let mut engines = self.subscriptions.engines_of(org_id);
        let pipeline = self.pipeline.iter().filter(|(org, _)| org.as_str() == org_id);
        engines.extend(pipeline.map(|(_, engine)| ("the event pipeline".to_owned(), engine.clone())));
        for (name, engine) in &engines {
            wait_read(name, engine, end).await?;
        }
        let mut events = 0;
        for (name, engine) in engines {
            events += engine.erase_user(user_id).await.map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(events)
    }
}

async fn wait_read(name: &str, engine: &Engine, end: Position) -> Result<(), String> {
    let since = Instant::now();
    loop {
        let status = engine.status().await.map_err(|error| format!("{name}: {error}"))?;
        if status.read_to >= end {
            return Ok(());
        }
        if since.elapsed() > READ_WAIT_MAX {
            return Err(format!(
                "{name} has not read yet what was accepted before, which may include events of the user: resume it, let \
                 it catch up, or delete it"
            ));
        }
        tokio::time::sleep(READ_PAUSE).await;
    }
}

/// Copies a store into a new file that only the service's user can read.
///
/// # Errors
/// Says what failed.
pub fn copy_store(store: &DeliveryStore, path: &Path) -> Result<(), StoreError> {
    crate::private_files::create(path)?;
    store.copy_to(path)
}
