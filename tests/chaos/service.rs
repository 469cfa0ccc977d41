//! The processes of one day: the real service, a real ClickHouse, and the
//! proxy between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::Signal;
use tallyhouse::clickhouse::engine::{Engine, EngineSettings};
use tallyhouse::config::Config;
use tallyhouse::transport::proto::audit_response::Step;
use tallyhouse::transport::proto::audit_service_client::AuditServiceClient;
use tallyhouse::transport::proto::segment_service_client::SegmentServiceClient;
use tallyhouse::transport::proto::{AuditRequest, ListSegmentsRequest, Segment, Window};
pub(crate) use tallyhouse_testkit::PATIENCE;
use tallyhouse_testkit::process::signal;
use tallyhouse_testkit::{Mode, Service, ServiceCommand};
use tokio::sync::watch;

use crate::check::number;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::event::timestamp;
use crate::fault::Tally;
use crate::plan::Plan;
use crate::proxy::Proxy;

/// How often something that is awaited is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The processes of one scenario. Dropping it stops them.
pub(crate) struct TestService {
    dir: PathBuf,
    engine: Engine,
    pub(crate) proxy: Proxy,
    pub(crate) clock: Clock,
    pub(crate) disk: Option<Disk>,
    service: Service,
    /// ClickHouse may have failed behind a token, so a rollup may lack a block.
    pub(crate) is_to_be_repaired: bool,
    url: watch::Sender<Option<String>>,
    http: reqwest::Client,
}

impl TestService {
    /// Everything but the service.
    pub(crate) async fn build(dir: &Path, plan: &Plan, clock: &Path, tally: Arc<Tally>) -> Result<Self> {
        let log_dir = dir.join("data/log");
        let disk = plan.log_disk_bytes.map(|bytes| Disk::mount(&log_dir, bytes)).transpose()?;
        let config = Config { data_dir: dir.join("engine"), clickhouse_http_port: 0, ..Config::default() };
        let executable = PathBuf::from(env!("CARGO_BIN_EXE_tallyhouse"));
        let engine = Engine::start_with(
            &config,
            EngineSettings {
                backoff_min: Duration::from_millis(10),
                stop_wait_max: Duration::from_millis(1),
                ..EngineSettings::with_executable(executable)
            },
        );
        let engine = engine.await?;
        let port = engine.endpoint().url.rsplit(':').next().context("a port")?.parse()?;
        let proxy = Proxy::start(port, tally).await?;
        let clock = Clock::at(clock, dir.join("clock"), plan.begins_at)?;
        let command =
            command(dir, &proxy, &engine, &clock, disk.as_ref())?.with_settings(plan.settings.iter().cloned());
        Ok(Self {
            dir: dir.to_owned(),
            engine,
            proxy,
            clock,
            disk,
            service: Service::new(command),
            is_to_be_repaired: false,
            url: watch::Sender::new(None),
            http: reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build()?,
        })
    }

    /// Where the service is, for those who use it.
    pub(crate) fn address(&self) -> watch::Receiver<Option<String>> {
        self.url.subscribe()
    }

    /// Where the service is now.
    pub(crate) fn url(&self) -> Result<String> {
        self.url.borrow().clone().context("the service is down")
    }

    /// The log's directory as this process sees it.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.dir.join("data/log"), Disk::seen_from_outside)
    }

    /// The directory of the id ledger.
    pub(crate) fn ledger_dir(&self) -> PathBuf {
        self.dir.join("data/ledger")
    }

    /// What the current run has written to its log.
    pub(crate) fn stderr(&self) -> String {
        self.service.stderr_of_run()
    }

    /// What all runs have written.
    pub(crate) fn stderr_of_all_runs(&self) -> String {
        self.service.stderr()
    }

    /// Starts a process of the service, without waiting for anything.
    pub(crate) fn launch(&mut self) -> Result<()> {
        Ok(self.service.launch()?)
    }

    /// Starts the service, and returns once it takes events.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.launch()?;
        let deadline = Instant::now() + PATIENCE;
        while !self.service.is_ready()? {
            ensure!(Instant::now() < deadline, "the service never said its address");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.url.send_replace(Some(self.service.addresses().main.clone()));
        Ok(())
    }

    /// That the service has not ended by itself.
    pub(crate) fn check_runs(&mut self) -> Result<()> {
        if let Some(status) = self.service.exit_status()? {
            let log = self.stderr();
            bail!("the service ended by itself ({status}): {}", log.lines().last().unwrap_or_default());
        }
        Ok(())
    }

    /// Kills the service, the engine or both, at once.
    pub(crate) async fn kill(&mut self, service: bool, engine: bool) -> Result<()> {
        if engine {
            self.signal_engine(Signal::KILL).await?;
        }
        if service {
            self.check_runs()?;
            self.url.send_replace(None);
            self.service.kill()?;
        }
        Ok(())
    }

    /// Asks the service to stop; it must end well.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.check_runs()?;
        self.service.signal(Signal::TERM)?;
        // Not by blocking: a thread that blocks leaves the runtime and ends, and the service with it (see `command`).
        let deadline = Instant::now() + PATIENCE;
        while self.service.exit_status()?.is_none() {
            ensure!(Instant::now() < deadline, "the service does not stop");
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let status = self.service.wait()?;
        self.url.send_replace(None);
        ensure!(status.success(), "the service stopped with {status}");
        Ok(())
    }

    /// Signals the engine's process, once there is one.
    pub(crate) async fn signal_engine(&self, wanted: Signal) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The process may be gone, and that not be known yet.
            if self.engine.pid().is_some_and(|pid| signal(pid, wanted).is_ok()) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "ClickHouse does not start again");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Asks ClickHouse itself; one row of JSON a line.
    pub(crate) async fn sql(&self, statement: &str) -> Result<Vec<serde_json::Value>> {
        let endpoint = self.engine.endpoint();
        let url = format!("{}/?database=tallyhouse&default_format=JSONCompactEachRow", endpoint.url);
        let deadline = Instant::now() + PATIENCE;
        let answer = loop {
            let request = self
                .http
                .post(&url)
                .header("X-ClickHouse-User", &endpoint.user)
                .header("X-ClickHouse-Key", endpoint.password.expose())
                .body(statement.to_owned());
            match request.send().await {
                Ok(answer) => break answer,
                Err(error) => ensure!(Instant::now() < deadline, "ClickHouse does not answer: {error}"),
            }
            tokio::time::sleep(LOOK_EVERY).await; // It may just be starting again.
        };
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{statement}: {text}");
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    async fn segments(&self) -> Result<SegmentServiceClient<tonic::transport::Channel>> {
        Ok(SegmentServiceClient::connect(self.url()?).await?)
    }

    /// Waits until the log is empty; segments that stay are told.
    pub(crate) async fn drained(&mut self) -> Result<()> {
        let mut client = self.segments().await?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let segments: Vec<Segment> = client.list_segments(ListSegmentsRequest {}).await?.into_inner().segments;
            if segments.is_empty() {
                return Ok(());
            }
            self.check_runs()?;
            ensure!(Instant::now() < deadline, "the log does not get empty: {segments:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Audits the hours of these moments, and repairs what differs, for no longer
    /// than this. Says whether the audit came to its end, which it
    /// need not on a fault scenario.
    pub(crate) async fn audit(&self, from_millis: i64, to_millis: i64, wait_max: Duration) -> Result<bool> {
        let window = Some(Window { from: Some(timestamp(from_millis)), to: Some(timestamp(to_millis)) });
        let mut client = AuditServiceClient::connect(self.url()?).await?;
        let audit = async {
            let mut steps =
                client.audit(AuditRequest { window, repair: true, unproven_removals_max: 0 }).await?.into_inner();
            let mut is_over = false;
            while let Some(step) = steps.message().await? {
                is_over = matches!(step.step, Some(Step::Summary(_)));
            }
            Ok::<_, tonic::Status>(is_over)
        };
        let ended = tokio::time::timeout(wait_max, audit).await;
        Ok(matches!(ended, Ok(Ok(true))))
    }

    /// The paths at which a table would put its next parts, so many of each
    /// partition that it has.
    pub(crate) async fn next_parts(&self, table: &str, count: u64) -> Result<Vec<PathBuf>> {
        let parts = self
            .sql(&format!(
                "SELECT concat(tables.data_paths[1], parts.partition_id), max(max(parts.max_block_number)) OVER () \
                 FROM system.parts AS parts, system.tables AS tables \
                 WHERE parts.database = 'tallyhouse' AND parts.table = '{table}' \
                   AND tables.database = parts.database AND tables.name = parts.table GROUP BY ALL"
            ))
            .await?;
        let mut paths = Vec::new();
        for row in &parts {
            let partition = row[0].as_str().context("a partition")?;
            let last = number(&row[1]).context("a number")?;
            paths
                .extend((last + 1..=last + count).map(|block| PathBuf::from(format!("{partition}_{block}_{block}_0"))));
        }
        Ok(paths)
    }

    /// Audits all hours that have events, and repairs them.
    pub(crate) async fn repair(&self) -> Result<()> {
        let hours = self.sql("SELECT DISTINCT toUnixTimestamp(toStartOfHour(occurred_at)) FROM events").await?;
        for hour in &hours {
            let from = number(&hour[0]).context("an hour")? as i64 * 1_000;
            ensure!(self.audit(from, from + 3_600_000, PATIENCE).await?, "an audit did not end");
        }
        Ok(())
    }

    /// How many blocks were taken back before ClickHouse was started again: it
    /// had noted their tokens, and was killed or failed before it had them.
    pub(crate) fn lost_blocks(&self) -> u64 {
        let below = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let tables = below(self.dir.join("engine/clickhouse/data/store")).flat_map(below);
        let logs = tables.flat_map(|table| below(table.join("deduplication_logs")));
        let taken_back = |log: PathBuf| {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            text.lines().filter(|line| line.starts_with("2\t")).count() as u64
        };
        logs.map(taken_back).sum()
    }

    /// Ends everything.
    pub(crate) async fn tear_down(self) -> Result<()> {
        drop(self.service);
        self.engine.stop().await;
        Ok(())
    }
}

/// How the service is started: on the proxy's ClickHouse, with a clock and perhaps a disk of its own.
fn command(dir: &Path, proxy: &Proxy, engine: &Engine, clock: &Clock, disk: Option<&Disk>) -> Result<ServiceCommand> {
    let endpoint = engine.endpoint();
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path that is no text");
    let command = ServiceCommand::new(env!("CARGO_BIN_EXE_tallyhouse"), Mode::Serve, dir.join("data"))
        .with_output_in(dir)
        .wrapped_in(disk.map(Disk::entrance).unwrap_or_default())
        // Should this process be killed, so is the service. (It is when the thread that started it ends.)
        .wrapped_in(["setpriv", "--pdeathsig", "KILL"])
        .with_settings([
            ("TALLYHOUSE_CLICKHOUSE_URL", proxy.url.clone()),
            ("TALLYHOUSE_CLICKHOUSE_USER", endpoint.user.clone()),
            ("TALLYHOUSE_CLICKHOUSE_PASSWORD", endpoint.password.expose().to_owned()),
            ("LD_PRELOAD", path(&clock.library)?),
            ("CHAOS_CLOCK", path(&clock.path)?),
        ]);
    Ok(command)
}
