//! A second service on a house's ClickHouse, with a log of its own.

use std::process::{Child, Command, Stdio};

use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tonic::transport::Channel;

use crate::house::{House, eventually};

/// Dropping it ends it.
pub(crate) struct SecondService {
    process: Child,
    dir: tempfile::TempDir,
    /// The address of gRPC and REST.
    pub(crate) url: String,
}

impl SecondService {
    /// Beside the first, with these settings.
    pub(crate) async fn start(house: &House, settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let password = std::fs::read_to_string(house.data_dir().join("clickhouse/password")).unwrap();
        let stderr = dir.path().join("stderr.log");
        let process = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
            .args(["serve", "--listen", "127.0.0.1:0", "--clickhouse-user", "tallyhouse", "--data-dir"])
            .arg(dir.path())
            .env("TALLYHOUSE_CLICKHOUSE_URL", &house.clickhouse_url)
            .env("TALLYHOUSE_CLICKHOUSE_PASSWORD", password.trim())
            .env("TALLYHOUSE_LOG_FORMAT", "json")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&stderr).unwrap())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(&stderr).unwrap())
            .spawn()
            .unwrap();
        let mut second = Self { process, dir, url: String::new() };
        eventually("an address", || async { second.address().is_some() }).await;
        second.url = format!("http://{}", second.address().unwrap());
        let http = reqwest::Client::new();
        eventually("ready", || async {
            http.get(format!("{}/readyz", second.url)).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        second
    }

    /// The address it has said it serves on.
    fn address(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.dir.path().join("stderr.log")).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("serving gRPC"))?;
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

impl Drop for SecondService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
