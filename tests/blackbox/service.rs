//! A whole Tallyhouse for a test: the real binary with its embedded
//! ClickHouse, on ports of its own, in a directory of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tallyhouse::transport::proto;
use tonic::Code;
use tonic::transport::Channel;

/// Longest a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The tables that an event reaches.
pub(crate) const TABLES: [&str; 5] = ["events", "campaign_minutes", "type_hours", "user_days", "user_minutes"];

/// A running service. Dropping it ends it, and its engine with it.
pub(crate) struct TestService {
    service: Option<Child>,
    settings: Vec<(String, String)>,
    /// Size of a disk of its own for the log, in megabytes.
    log_disk_mb: Option<u32>,
    /// How many files its processes may open.
    descriptors_max: Option<u32>,
    dir: tempfile::TempDir,
    /// The address of gRPC and REST.
    pub(crate) url: String,
    /// The address of ClickHouse itself, which only the service is meant to use.
    pub(crate) clickhouse_url: String,
    /// The address where analysts reach ClickHouse, through the service.
    pub(crate) sql_url: String,
    /// For requests over REST and to ClickHouse.
    pub(crate) http: reqwest::Client,
}

impl TestService {
    /// A new, empty one.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A new one with these settings (as environment variables).
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::with_log_disk(settings, None).await
    }

    /// A new one that is asked by this client, over TLS for example.
    pub(crate) async fn with_client(settings: &[(&str, &str)], http: reqwest::Client) -> Self {
        let mut service = Self::unstarted(settings);
        service.http = http;
        service.start().await;
        service
    }

    /// A new one whose processes may open so many files.
    pub(crate) async fn with_descriptors(settings: &[(&str, &str)], descriptors_max: u32) -> Self {
        let mut service = Self::unstarted(settings);
        service.descriptors_max = Some(descriptors_max);
        service.start().await;
        service
    }

    /// A new one whose log has a disk of its own, which only its processes
    /// see.
    pub(crate) async fn with_log_disk(settings: &[(&str, &str)], log_disk_mb: Option<u32>) -> Self {
        let mut service = Self::unstarted(settings);
        service.log_disk_mb = log_disk_mb;
        service.start().await;
        service
    }

    fn unstarted(settings: &[(&str, &str)]) -> Self {
        Self {
            service: None,
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            log_disk_mb: None,
            descriptors_max: None,
            dir: tempfile::tempdir().unwrap(),
            url: String::new(),
            clickhouse_url: String::new(),
            sql_url: String::new(),
            http: reqwest::Client::new(),
        }
    }

    /// Changes a setting for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(other, _)| other != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// The directory of the log and of the engine.
    pub(crate) fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command that starts it.
    fn command(&self) -> Command {
        let mut command = match (self.log_disk_mb, self.descriptors_max) {
            (None, None) => Command::new(env!("CARGO_BIN_EXE_tallyhouse")),
            (Some(megabytes), _) => self.with_own_mount(megabytes),
            (None, Some(descriptors)) => {
                let script = format!("ulimit -n {descriptors} && exec {} \"$@\"", env!("CARGO_BIN_EXE_tallyhouse"));
                let mut command = Command::new("sh");
                command.args(["-c", &script, "sh"]);
                command
            }
        };
        command
            .args(["dev", "--listen", "127.0.0.1:0", "--clickhouse-http-port", "0", "--data-dir"])
            .arg(self.dir.path())
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::OpenOptions::new().create(true).append(true).open(self.stderr_path()).unwrap());
        command
    }

    fn with_own_mount(&self, megabytes: u32) -> Command {
        let log = self.dir.path().join("log");
        std::fs::create_dir_all(&log).unwrap();
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m tmpfs {} && eval \"${{TEST_LOG_SETUP:-:}}\" && exec {} \"$@\"",
            log.display(),
            env!("CARGO_BIN_EXE_tallyhouse")
        );
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command
    }

    /// The log's directory as the service sees it.
    pub(crate) fn log_dir(&self) -> PathBuf {
        let log = self.dir.path().join("log");
        if self.log_disk_mb.is_none() {
            return log;
        }
        let inside = log.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.pid())).join(inside)
    }

    fn stderr_path(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    /// What the service wrote to its log.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr_path()).unwrap()
    }

    /// Starts the service with the same directory, which must fail: what it says.
    pub(crate) fn start_in_vain(&self) -> String {
        let before = std::fs::read_to_string(self.stderr_path()).unwrap_or_default().len();
        let status = self.command().stdout(Stdio::null()).status().unwrap();
        assert!(!status.success(), "it started");
        self.stderr()[before..].to_owned()
    }

    /// Starts the service (again), with the same directory.
    pub(crate) async fn start(&mut self) {
        let mut service = self.command().spawn().unwrap();
        let stdout = service.stdout.take().unwrap();
        self.service = Some(service);
        let (line_read, lines) = std::sync::mpsc::channel();
        // Reads on for as long as the service writes, so that it never blocks.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = line_read.send(line);
            }
        });
        let read_address = |label: &str| {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {label}: {}", self.stderr()));
                if line.contains(label) {
                    let found = line.split_whitespace().find(|word| word.starts_with("http"));
                    return found.unwrap().to_owned();
                }
            }
        };
        let (url, sql_url) = tokio::task::block_in_place(|| (read_address("gRPC"), read_address("ClickHouse")));
        self.url = url;
        self.sql_url = sql_url;
        let port = std::fs::read_to_string(self.dir.path().join("clickhouse/http-port")).unwrap();
        self.clickhouse_url = format!("http://127.0.0.1:{}", port.trim());
        eventually("ready", || async {
            let ready = self.http.get(format!("{}/readyz", self.url)).send().await;
            ready.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// The service's process.
    pub(crate) fn pid(&self) -> u32 {
        self.service.as_ref().unwrap().id()
    }

    /// The engine's process.
    pub(crate) fn engine_pid(&self) -> u32 {
        let children = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children")).ok();
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let children: Vec<String> = tasks.flatten().filter_map(children).collect();
        let pids: Vec<u32> = children.join(" ").split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.len(), 1, "one engine");
        pids[0]
    }

    /// Sends a signal to the service.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Kills the service without any warning, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        self.service.take().unwrap().wait().unwrap();
    }

    /// Asks the service to stop, and waits for its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.signal("TERM");
        self.service.take().unwrap().wait().unwrap().code()
    }

    /// A gRPC connection.
    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.url.clone()).unwrap().connect().await.unwrap()
    }

    /// A client for events in.
    pub(crate) async fn ingest(&self) -> proto::ingest_service_client::IngestServiceClient<Channel> {
        proto::ingest_service_client::IngestServiceClient::new(self.channel().await)
    }

    /// A client for answers out.
    pub(crate) async fn query(&self) -> proto::query_service_client::QueryServiceClient<Channel> {
        proto::query_service_client::QueryServiceClient::new(self.channel().await)
    }

    /// Sends a batch and waits until it is in ClickHouse. Does as it is told
    /// when it is told to try again later.
    pub(crate) async fn store(&self, events: Vec<proto::Event>) -> proto::IngestBatchResponse {
        let durability = proto::Durability::Stored.into();
        let request = proto::IngestBatchRequest { events, durability, ..Default::default() };
        let mut ingest = self.ingest().await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ingest.ingest_batch(request.clone()).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) => {
                    let is_temporary = matches!(status.code(), Code::ResourceExhausted | Code::Unavailable);
                    assert!(is_temporary && Instant::now() < deadline, "{status}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// A GET over REST: status and JSON body.
    pub(crate) async fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// A POST of JSON over REST: status and JSON body.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> (u16, serde_json::Value) {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The first value of a question to ClickHouse, asked as the service.
    pub(crate) async fn sql(&self, statement: &str) -> String {
        let password = std::fs::read_to_string(self.dir.path().join("clickhouse/password")).unwrap();
        let request = self
            .http
            .post(&self.clickhouse_url)
            .header("X-ClickHouse-User", "tallyhouse")
            .header("X-ClickHouse-Key", password.trim())
            .header("X-ClickHouse-Database", "tallyhouse")
            .body(statement.to_owned());
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{statement}: {text}");
        text.trim_end().to_owned()
    }

    /// Waits until the log is empty: everything acknowledged is in ClickHouse.
    pub(crate) async fn settled(&self) {
        let client = proto::segment_service_client::SegmentServiceClient::new(self.channel().await);
        eventually("an empty log", || {
            let mut client = client.clone();
            async move {
                let listed = client.list_segments(proto::ListSegmentsRequest {}).await;
                listed.is_ok_and(|answer| answer.into_inner().segments.is_empty())
            }
        })
        .await;
    }

    /// Asserts that so many events are stored, once each, in the raw table.
    pub(crate) async fn assert_stored(&self, events: usize) {
        self.settled().await;
        assert_eq!(self.sql("SELECT count(), uniqExact(event_id) FROM events").await, format!("{events}\t{events}"));
    }

    /// The ids that are stored, and how many events each rollup counts.
    pub(crate) async fn totals(&self) -> Vec<String> {
        let mut totals = Vec::new();
        for statement in [
            "SELECT uniqExact(event_id) FROM events",
            "SELECT sum(events) FROM campaign_minutes",
            "SELECT sum(events) FROM type_hours",
            "SELECT sum(toInt32(c00)) FROM user_days",
            "SELECT sum(toInt32(events)) FROM user_minutes",
        ] {
            totals.push(self.sql(statement).await);
        }
        totals
    }

    /// Asserts that so many events are stored, once each, in the raw table and
    /// in every rollup.
    pub(crate) async fn assert_counted(&self, events: usize) {
        self.assert_stored(events).await;
        assert_eq!(self.totals().await, vec![events.to_string(); 5]);
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            let _ = service.kill();
            let _ = service.wait();
        }
        if std::thread::panicking() {
            eprintln!("the service's log:\n{}", std::fs::read_to_string(self.stderr_path()).unwrap_or_default());
        }
    }
}

/// Sends a signal to a process that a test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Waits for something to become true, asking often.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
