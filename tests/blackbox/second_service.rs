//! A second service on the ClickHouse of the first, with a log of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tonic::transport::Channel;

use crate::service::{TestService, eventually};

/// Dropping it ends it.
pub(crate) struct SecondService {
    process: Child,
    dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
    /// The address of gRPC and REST.
    pub(crate) url: String,
}

impl SecondService {
    /// Beside the first, with these settings.
    pub(crate) async fn start(service: &TestService, settings: &[(&str, &str)]) -> Self {
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let settings: Vec<_> = database(service).into_iter().chain(own).collect();
        let dir = tempfile::tempdir().unwrap();
        let mut second = Self { process: spawn(dir.path(), &settings), dir, settings, url: String::new() };
        second.serve().await;
        second
    }

    /// Kills it without any warning, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again, with the same directory.
    pub(crate) async fn start_again(&mut self) {
        self.process = spawn(self.dir.path(), &self.settings);
        self.serve().await;
    }

    /// The directory of its log.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// What it has written about this run.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(stderr_path(self.dir.path())).unwrap()
    }

    /// Waits until it can be asked.
    async fn serve(&mut self) {
        eventually("an address", || async { self.address().is_some() }).await;
        self.url = format!("http://{}", self.address().unwrap());
        let http = reqwest::Client::new();
        // Of a database that has events, it reads the ids first.
        eventually("ready", || async {
            let Ok(answer) = http.get(format!("{}/readyz", self.url)).send().await else { return false };
            answer.status() == 200 && !answer.text().await.unwrap_or_default().contains("LEDGER_INCOMPLETE")
        })
        .await;
    }

    /// The address it has said it serves on.
    fn address(&self) -> Option<String> {
        self.address_of("serving gRPC")
    }

    /// The address of SQL for analysts, if it has one.
    pub(crate) fn sql_address(&self) -> Option<String> {
        self.address_of("serving SQL")
    }

    /// The address in the line of its log that has these words.
    fn address_of(&self, words: &str) -> Option<String> {
        let log = self.stderr();
        let line = log.lines().find(|line| line.contains(words))?;
        let start = line.find("127.0.0.1:")?;
        let address: String =
            line[start..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        Some(address)
    }

    /// A gRPC connection.
    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    /// A client for events in.
    pub(crate) async fn ingest(&self) -> IngestServiceClient<Channel> {
        IngestServiceClient::new(self.channel().await)
    }
}

/// Starts a second service, which must end by itself: what it says.
pub(crate) fn start_in_vain(service: &TestService) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut process = spawn(dir.path(), &database(service));
    let status = process.wait().unwrap();
    assert!(!status.success(), "it served");
    std::fs::read_to_string(stderr_path(dir.path())).unwrap()
}

/// The settings by which a service's ClickHouse is reached.
fn database(service: &TestService) -> Vec<(String, String)> {
    let password = std::fs::read_to_string(service.data_dir().join("clickhouse/password")).unwrap();
    let url = ("TALLYHOUSE_CLICKHOUSE_URL".to_owned(), service.clickhouse_url.clone());
    vec![url, ("TALLYHOUSE_CLICKHOUSE_PASSWORD".to_owned(), password.trim().to_owned())]
}

impl Drop for SecondService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn stderr_path(dir: &Path) -> PathBuf {
    dir.join("stderr.log")
}

fn spawn(dir: &Path, settings: &[(String, String)]) -> Child {
    let stderr = std::fs::File::create(stderr_path(dir)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["serve", "--listen", "127.0.0.1:0", "--clickhouse-user", "tallyhouse", "--data-dir"])
        .arg(dir)
        .env("TALLYHOUSE_LOG_FORMAT", "json")
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(stderr.try_clone().unwrap())
        .stderr(stderr)
        .spawn()
        .unwrap()
}
