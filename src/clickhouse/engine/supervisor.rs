//! Restarts the engine's process when it ends.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::block_log;
use super::data_directory::DataDirectory;
use super::process::{Launcher, Process, ProcessBounds};
use super::sandbox::SandboxStatus;
use super::source::Source;
use super::users::{READER_USER, SERVICE_USER};
use super::{Endpoint, EngineSettings};

/// How often something that is awaited is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a wait is mentioned in the log.
const MENTION_EVERY: Duration = Duration::from_secs(10);
/// Longest one question whether it answers may take.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(5);
/// After so many attempts, a start is given no more time.
const DOUBLINGS_MAX: u32 = 4;

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("its port is in use by another program")]
    PortTaken,
    #[error("its data directory is in use by another ClickHouse")]
    InUse,
    #[error("it ended at once ({status}): {output}")]
    Ended { status: ExitStatus, output: String },
    #[error("it did not answer within {wait_max:?}, and was killed: {output}")]
    Hung { wait_max: Duration, output: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Starts processes in one data directory.
#[derive(Debug)]
pub(super) struct Starter {
    settings: EngineSettings,
    source: Source,
    home: DataDirectory,
    launcher: Launcher,
    client: reqwest::Client,
    port: u16,
}

impl Starter {
    pub(super) fn new(settings: EngineSettings, source: Source, home: DataDirectory) -> io::Result<Self> {
        // A connection kept open would hold up the end of the process.
        let client = reqwest::Client::builder().tls_certs_only([]).no_proxy();
        let client = client.pool_max_idle_per_host(0).timeout(QUESTION_WAIT_MAX).build();
        let client = client.map_err(io::Error::other)?;
        Ok(Self { settings, source, home, launcher: Launcher::new()?, client, port: 0 })
    }

    pub(super) fn dir(&self) -> &Path {
        self.home.dir()
    }

    /// How much of its sandbox is in force, of the process that was started last.
    pub(super) fn sandbox_status(&self) -> SandboxStatus {
        self.home.sandbox_status()
    }

    /// Of the process that was started last.
    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint {
            url: format!("http://127.0.0.1:{}", self.port),
            user: SERVICE_USER.to_owned(),
            password: self.home.password().clone(),
            reader_user: READER_USER.to_owned(),
            reader_password: self.home.password_of(READER_USER),
        }
    }

    /// Starts a process on a port, and returns it when it answers queries. It
    /// is given the more time the more attempts there were before.
    pub(super) async fn start(&mut self, port: u16, attempts: u32) -> Result<Process, StartError> {
        self.port = port;
        self.former_gone().await?;
        // No process of ours is left: who has the port now keeps it.
        drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => StartError::PortTaken,
            _ => StartError::Io(error),
        })?);
        block_log::mend(&self.home.data_dir())?;
        self.home.write_config(self.source.form(), port)?;
        let bounds = ProcessBounds { port, readable_paths: &self.settings.readable_paths };
        let executable = &self.settings.executable;
        let mut process = Process::start(&self.launcher, executable, &self.source, &self.home, &bounds).await?;
        let wait_max = self.settings.start_wait_max * 2_u32.pow(attempts.min(DOUBLINGS_MAX));
        tokio::select! {
            status = process.wait() => {
                return Err(StartError::Ended { status: status?, output: self.home.output_tail() });
            }
            () = self.answers() => {
                self.home.write_port(port)?;
                return Ok(process);
            }
            () = tokio::time::sleep(wait_max) => {}
        }
        process.kill().await;
        Err(StartError::Hung { wait_max, output: self.home.output_tail() })
    }

    /// Waits for a former process on the same data, whose service was killed.
    async fn former_gone(&self) -> Result<(), StartError> {
        let deadline = Instant::now() + self.settings.former_wait_max;
        if self.home.is_locked()? {
            tracing::info!(dir = %self.home.dir().display(), "waiting for an earlier ClickHouse process to end");
        }
        while self.home.is_locked()? {
            if Instant::now() > deadline {
                return Err(StartError::InUse);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until a query is answered.
    async fn answers(&self) {
        let begun = Instant::now();
        let mut mention = begun + MENTION_EVERY;
        while !self.answers_now().await {
            if Instant::now() > mention {
                tracing::info!(since = ?begun.elapsed(), "ClickHouse is still starting");
                mention += MENTION_EVERY;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks with the password, which only a process of this home knows.
    async fn answers_now(&self) -> bool {
        let endpoint = self.endpoint();
        let request = self
            .client
            .post(&endpoint.url)
            .header("X-ClickHouse-User", &endpoint.user)
            .header("X-ClickHouse-Key", endpoint.password.expose())
            .body("SELECT 1");
        let Ok(response) = request.send().await else { return false };
        let is_answer = response.status().is_success();
        // To the end: ClickHouse makes an error of an answer cut short.
        is_answer && response.bytes().await.is_ok()
    }
}

/// Restarts a process whenever it ends.
#[derive(Debug)]
pub(super) struct Supervisor {
    starter: Starter,
    process: Process,
    stop: CancellationToken,
    pid: watch::Sender<Option<u32>>,
}

impl Supervisor {
    /// Of this process first. Also returns where the id of the current one is
    /// told.
    pub(super) fn new(
        starter: Starter,
        process: Process,
        stop: CancellationToken,
    ) -> (Self, watch::Receiver<Option<u32>>) {
        let (pid, told) = watch::channel(process.pid());
        (Self { starter, process, stop, pid }, told)
    }

    /// Runs until it is stopped, and ends the process.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        loop {
            let status = tokio::select! {
                () = stop.cancelled() => break,
                status = self.process.wait() => status,
            };
            self.pid.send_replace(None);
            let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
            let output = self.starter.home.output_tail();
            tracing::error!(status, output, "ClickHouse ended; restarting it");
            let Some(restarted) = stop.run_until_cancelled(self.restart()).await else {
                // A process that was just starting has been killed. Its lock
                // is free when it has gone.
                let _ = self.starter.former_gone().await;
                return;
            };
            self.process = restarted;
            self.pid.send_replace(self.process.pid());
        }
        self.process.end(self.starter.settings.stop_wait_max).await;
        self.pid.send_replace(None);
    }

    /// Starts a process, however often it takes.
    async fn restart(&mut self) -> Process {
        let begun = Instant::now();
        let mut attempts = 0;
        let mut pauses = pauses(&self.starter.settings);
        loop {
            match self.starter.start(self.starter.port, attempts).await {
                Ok(process) => {
                    tracing::info!(pid = process.pid(), after = ?begun.elapsed(), "ClickHouse answers again");
                    return process;
                }
                Err(error) => {
                    let pause = pauses.next().unwrap_or(self.starter.settings.backoff_max);
                    tracing::warn!(%error, ?pause, "ClickHouse did not start; retrying");
                    tokio::time::sleep(pause).await;
                }
            }
            attempts += 1;
        }
    }
}

/// The pauses after failed attempts: they double up to the bound.
fn pauses(settings: &EngineSettings) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(settings.backoff_min)
        .with_max_delay(settings.backoff_max)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_bound() {
        let pauses = pauses(&EngineSettings::with_executable("tallyhouse".into()));
        let millis: Vec<u128> = pauses.take(9).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
    }
}
