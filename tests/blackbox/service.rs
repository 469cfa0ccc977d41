//! A whole Tallyhouse for a test: the real binary with its embedded
//! ClickHouse, on ports of its own, in a directory of its own; or a second one
//! on the ClickHouse of the first.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tallyhouse::transport::proto;
use tallyhouse_testkit::process::{Signal, children};
use tallyhouse_testkit::{Mode, Service, ServiceCommand, process};
pub(crate) use tallyhouse_testkit::{PATIENCE, eventually};
use tokio::task::block_in_place;
use tonic::Code;
use tonic::transport::Channel;

/// The tables that an event reaches.
pub(crate) const TABLES: [&str; 5] = ["events", "campaign_minutes", "type_hours", "user_days", "user_minutes"];

/// The file of idempotency keys in the data directory, and where a disk for it is mounted.
const KEYS_FILE: &str = "idempotency.redb";
const KEY_DISK: &str = "key-disk";

/// A running service. Dropping it ends it, and its engine with it.
pub(crate) struct TestService {
    service: Service,
    /// The log has a disk of its own.
    has_log_disk: bool,
    /// The password of the service's user in ClickHouse.
    clickhouse_password: String,
    /// The service's database, which statements are about.
    database: String,
    /// The address of gRPC and REST.
    pub(crate) url: String,
    /// The address of ClickHouse itself, which only the service is meant to use.
    pub(crate) clickhouse_url: String,
    /// The address where analysts reach ClickHouse, through the service; empty
    /// when there is none.
    pub(crate) sql_url: String,
    /// For requests over REST and to ClickHouse.
    pub(crate) http: reqwest::Client,
    /// Deleted after the service has ended.
    _dir: tempfile::TempDir,
}

impl TestService {
    /// A new, empty one.
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A new one with these settings (as environment variables).
    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        Self::unstarted(Mode::Dev, settings, |command| command).started().await
    }

    /// A new one that is asked by this client, over TLS for example.
    pub(crate) async fn with_client(settings: &[(&str, &str)], http: reqwest::Client) -> Self {
        let mut service = Self::unstarted(Mode::Dev, settings, |command| command);
        service.http = http;
        service.started().await
    }

    /// A new one whose processes may open so many files.
    pub(crate) async fn with_descriptors(settings: &[(&str, &str)], descriptors_max: u32) -> Self {
        let script = format!("ulimit -n {descriptors_max} && exec \"$@\"");
        let wrap = |command: ServiceCommand| command.wrapped_in(["sh", "-c", &script, "sh"]);
        Self::unstarted(Mode::Dev, settings, wrap).started().await
    }

    /// A new one whose log has a disk of its own of so many megabytes, which
    /// only its processes see.
    pub(crate) async fn with_log_disk(settings: &[(&str, &str)], megabytes: u32) -> Self {
        let wrap = |command: ServiceCommand| {
            let log = command.data_dir().join("log");
            std::fs::create_dir_all(&log).unwrap();
            let script = format!(
                "mount -t tmpfs -o size={megabytes}m tmpfs {} && eval \"${{TEST_LOG_SETUP:-:}}\" && exec \"$@\"",
                log.display()
            );
            command.wrapped_in(["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        };
        let mut service = Self::unstarted(Mode::Dev, settings, wrap);
        service.has_log_disk = true;
        service.started().await
    }

    /// A new one whose file of idempotency keys is on a disk of its own from its second start on. The disk has room for
    /// the file as it is then and for so many kilobytes more, and only the service's processes see it.
    pub(crate) fn unstarted_with_key_disk(settings: &[(&str, &str)], kilobytes: u32) -> Self {
        let wrap = |command: ServiceCommand| {
            let (keys, disk) = (command.data_dir().join(KEYS_FILE), command.data_dir().join(KEY_DISK));
            std::fs::create_dir_all(&disk).unwrap();
            let (keys, disk) = (keys.display(), disk.display());
            // A file can be put in the place of one that is there. It keeps its holes: what is written into one takes room.
            let script = format!(
                "if [ -s {keys} ]; then used=$(du -k {keys} | cut -f1); \
                 mount -t tmpfs -o size=$((used + {kilobytes}))k tmpfs {disk} && cp --sparse=always {keys} {disk}/ && \
                 mount --bind {disk}/{KEYS_FILE} {keys} || exit 1; fi; exec \"$@\""
            );
            command.wrapped_in(["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"])
        };
        Self::unstarted(Mode::Dev, settings, wrap)
    }

    /// The disk of the file of idempotency keys, as the service sees it.
    pub(crate) fn key_disk(&self) -> PathBuf {
        self.seen_by_service(&self.data_dir().join(KEY_DISK))
    }

    /// A second service on the ClickHouse of this one, with a log of its own.
    pub(crate) async fn second(&self, settings: &[(&str, &str)]) -> Self {
        self.unstarted_second(settings).started().await
    }

    /// The same, not started yet.
    pub(crate) fn unstarted_second(&self, settings: &[(&str, &str)]) -> Self {
        let clickhouse = [
            ("TALLYHOUSE_CLICKHOUSE_URL", self.clickhouse_url.as_str()),
            ("TALLYHOUSE_CLICKHOUSE_USER", "tallyhouse"),
            ("TALLYHOUSE_CLICKHOUSE_PASSWORD", &self.clickhouse_password),
            ("TALLYHOUSE_LOG_FORMAT", "json"),
        ];
        let mut second = Self::unstarted(Mode::Serve, &[&clickhouse, settings].concat(), |command| command);
        second.clickhouse_url.clone_from(&self.clickhouse_url);
        second.clickhouse_password.clone_from(&self.clickhouse_password);
        second
    }

    /// A new one that is not running yet.
    pub(crate) fn unstarted_dev(settings: &[(&str, &str)]) -> Self {
        Self::unstarted(Mode::Dev, settings, |command| command)
    }

    /// One of another program, such as that of an older version.
    pub(crate) fn unstarted_of(program: &Path, settings: &[(&str, &str)]) -> Self {
        let mut service = Self::unstarted(Mode::Dev, settings, |command| command);
        service.set_program(program);
        service
    }

    /// Changes the program for the next start.
    pub(crate) fn set_program(&mut self, program: &Path) {
        self.service.command_mut().set_program(program);
    }

    /// Has statements be about another database.
    pub(crate) fn use_database(&mut self, database: &str) {
        database.clone_into(&mut self.database);
    }

    fn unstarted(mode: Mode, settings: &[(&str, &str)], wrap: impl FnOnce(ServiceCommand) -> ServiceCommand) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let command = ServiceCommand::new(env!("CARGO_BIN_EXE_tallyhouse"), mode, dir.path());
        Self {
            service: Service::new(wrap(command.with_settings(settings.iter().copied()))),
            has_log_disk: false,
            clickhouse_password: String::new(),
            database: "tallyhouse".to_owned(),
            url: String::new(),
            clickhouse_url: String::new(),
            sql_url: String::new(),
            http: reqwest::Client::new(),
            _dir: dir,
        }
    }

    async fn started(mut self) -> Self {
        self.start().await;
        self
    }

    /// Changes a setting for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.service.command_mut().set(name, value);
    }

    /// The directory of the log and of the engine.
    pub(crate) fn data_dir(&self) -> &Path {
        self.service.data_dir()
    }

    /// The log's directory as the service sees it.
    pub(crate) fn log_dir(&self) -> PathBuf {
        let log = self.data_dir().join("log");
        if !self.has_log_disk {
            return log;
        }
        self.seen_by_service(&log)
    }

    /// A path below which the service has mounted something.
    fn seen_by_service(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap();
        Path::new(&format!("/proc/{}/root", self.pid())).join(inside)
    }

    /// What the service wrote to its log, in all runs.
    pub(crate) fn stderr(&self) -> String {
        self.service.stderr()
    }

    /// What the service wrote to its log since its last start.
    pub(crate) fn stderr_of_run(&self) -> String {
        self.service.stderr_of_run()
    }

    /// Starts the service with the same directory, which must fail: what it says.
    pub(crate) fn start_in_vain(&mut self) -> String {
        assert_eq!(self.service.pid(), None, "it is running");
        self.service.launch().unwrap();
        let status = block_in_place(|| self.service.wait()).unwrap();
        assert!(!status.success(), "it started");
        self.stderr_of_run()
    }

    /// Starts the service (again), with the same directory, and waits until it is ready.
    pub(crate) async fn start(&mut self) {
        self.start_unready();
        eventually("ready", || async {
            let Ok(answer) = self.http.get(format!("{}/readyz", self.url)).send().await else { return false };
            // A second service reads the ids of its database's events first.
            let is_second = self.service.engine_url().is_err();
            answer.status() == 200
                && !(is_second && answer.text().await.unwrap_or_default().contains("LEDGER_INCOMPLETE"))
        })
        .await;
    }

    /// The same, until it answers.
    pub(crate) fn start_unready(&mut self) {
        block_in_place(|| self.service.start()).unwrap_or_else(|error| panic!("{error}"));
        let addresses = self.service.addresses();
        self.url.clone_from(&addresses.main);
        self.sql_url = addresses.sql.clone().unwrap_or_default();
        // A second service has that of the first.
        if let (Ok(url), Ok(password)) = (self.service.engine_url(), self.service.engine_password()) {
            (self.clickhouse_url, self.clickhouse_password) = (url, password);
        }
    }

    /// The service's process.
    pub(crate) fn pid(&self) -> u32 {
        self.service.pid().unwrap()
    }

    /// The engine's process.
    pub(crate) fn engine_pid(&self) -> u32 {
        let pids = children(self.pid());
        assert_eq!(pids.len(), 1, "one engine");
        pids[0]
    }

    /// Sends a signal to the service.
    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Kills the service without any warning, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.service.kill().unwrap();
    }

    /// Asks the service to stop, and waits for its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        self.service.stop().unwrap().code()
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
        let request = self
            .http
            .post(&self.clickhouse_url)
            .header("X-ClickHouse-User", "tallyhouse")
            .header("X-ClickHouse-Key", &self.clickhouse_password)
            .header("X-ClickHouse-Database", &self.database)
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

/// Sends a signal to a process that a test started.
pub(crate) fn signal(pid: u32, name: &str) {
    let wanted = match name {
        "CONT" => Signal::CONT,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        _ => panic!("unknown: {name}"),
    };
    process::signal(pid, wanted).unwrap_or_else(|error| panic!("{name} to {pid}: {error}"));
}
