//! The service under test: a child process with its own embedded ClickHouse,
//! in a directory that goes when the benchmark is over.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clickhouse::Client;
use tonic::transport::{Channel, Endpoint as GrpcEndpoint};

use crate::clickhouse::client::Endpoint;
use crate::clickhouse::engine::spread_parts;
use crate::clickhouse::migrations::migrate;
use crate::clickhouse::store::TABLES as STORE_TABLES;
use crate::config::Secret;
use crate::transport::proto::segment_service_client::SegmentServiceClient;
use crate::transport::proto::{self, ListSegmentsRequest};

/// The database of the baseline: the same tables, beside the service's, and under
/// a name that the service's user may use.
const BASELINE: &str = "tallyhouse_baseline";
/// Pause between two looks at whether something has happened.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// The same for merges, which take longer, and longest they are waited for.
const MERGE_LOOK_PAUSE: Duration = Duration::from_millis(100);
const MERGE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Rows that are filled in at a time.
const PRELOAD_BLOCK: u64 = 1_000_000;

/// A running service of the benchmark, with access to its tables. Dropping it stops the processes
/// and deletes the directory.
pub(super) struct BenchService {
    service: Child,
    dir: PathBuf,
    settings: Vec<(String, String)>,
    /// The address of gRPC and REST.
    pub(super) url: String,
    /// How to reach the service's tables.
    pub(super) endpoint: Endpoint,
    /// How to reach the baseline's tables.
    pub(super) baseline: Endpoint,
}

impl BenchService {
    /// Starts the service with these settings (as environment variables), and
    /// makes the baseline's tables.
    pub(super) async fn start(dir: PathBuf, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir)?;
        let settings: Vec<_> = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let (service, url, clickhouse_url) = start_service(&dir, &settings).await?;
        let password = std::fs::read_to_string(dir.join("clickhouse/password"))?;
        let endpoint = Endpoint {
            url: clickhouse_url,
            user: "tallyhouse".to_owned(),
            password: Secret::new(password.trim().to_owned()),
            database: "tallyhouse".to_owned(),
        };
        let baseline = Endpoint { database: BASELINE.to_owned(), ..endpoint.clone() };
        migrate(&baseline).await?;
        spread_parts(&dir);
        Ok(Self { service, dir, settings, url, endpoint, baseline })
    }

    /// Ends the service as an operator would, and starts it again without its
    /// id ledger: it reads the ids of what is stored, which is waited for.
    pub(super) async fn relearn_ids(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.service);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = self.service.wait()?;
        anyhow::ensure!(ended.success(), "the service ended with {ended}");
        std::fs::remove_dir_all(self.dir.join("ledger"))?;
        let (service, url, clickhouse_url) = start_service(&self.dir, &self.settings).await?;
        self.service = service;
        self.url = url;
        self.endpoint.url.clone_from(&clickhouse_url);
        self.baseline.url = clickhouse_url;
        while reqwest::get(format!("{}/readyz", self.url)).await?.text().await?.contains("LEDGER_INCOMPLETE") {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Stops ClickHouse, as a machine that hangs would, until the answer is
    /// dropped.
    pub(super) fn stop_engine(&self) -> anyhow::Result<StoppedEngine> {
        let pids = children(self.service.id());
        let pids: Vec<_> =
            pids.into_iter().filter_map(|pid| rustix::process::Pid::from_raw(pid.cast_signed())).collect();
        anyhow::ensure!(!pids.is_empty(), "the engine was not found");
        for pid in &pids {
            rustix::process::kill_process(*pid, rustix::process::Signal::STOP)?;
        }
        Ok(StoppedEngine { pids })
    }

    /// Waits until ClickHouse has merged what was inserted. The users' days are
    /// merged now: else that is done once they are a minute old, within
    /// whatever is measured then.
    pub(super) async fn merged(&self) -> anyhow::Result<()> {
        // While others are merged, a day might be left out.
        self.merges_nothing().await?;
        for endpoint in [&self.endpoint, &self.baseline] {
            let merge = endpoint.client().query_raw("OPTIMIZE TABLE user_days FINAL");
            merge.with_setting("optimize_skip_merged_partitions", "1").execute().await?;
        }
        self.merges_nothing().await
    }

    /// Waits until ClickHouse merges nothing, for a minute at most.
    async fn merges_nothing(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < MERGE_WAIT_MAX {
            let merges: u64 = self.clickhouse().query_raw("SELECT count() FROM system.merges").fetch_one().await?;
            if merges == 0 {
                break;
            }
            tokio::time::sleep(MERGE_LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Events that are logged and not stored.
    pub(super) async fn unstored_events(&self) -> anyhow::Result<u64> {
        let mut segments = SegmentServiceClient::new(self.channel().await?);
        let segments = segments.list_segments(ListSegmentsRequest {}).await?.into_inner().segments;
        Ok(segments.iter().map(|segment| segment.rows).sum())
    }

    /// Rows of the service's raw table.
    pub(super) async fn count_events(&self) -> anyhow::Result<u64> {
        Ok(self.clickhouse().query_raw("SELECT count() FROM events").fetch_one().await?)
    }

    /// So many of the events that were filled in for a day that ended `ago`,
    /// as a producer would send them again.
    pub(super) async fn stored_events(&self, events: usize, ago: Duration) -> anyhow::Result<Vec<proto::Event>> {
        #[derive(clickhouse::Row, serde::Deserialize)]
        struct Stored {
            event_id: String,
            r#type: String,
            campaign_id: String,
            creative_id: String,
            source: String,
            user_id: String,
            millis: i64,
        }
        let statement = format!(
            "SELECT event_id, toString(type) AS type, toString(campaign_id) AS campaign_id, \
             toString(creative_id) AS creative_id, toString(source) AS source, user_id, \
             toUnixTimestamp64Milli(occurred_at) AS millis \
             FROM events WHERE occurred_at < now() - {} ORDER BY sipHash64(event_id) LIMIT {events}",
            ago.as_secs()
        );
        let stored: Vec<Stored> = self.clickhouse().query_raw(&statement).fetch_all().await?;
        let event = |stored: Stored| proto::Event {
            event_id: stored.event_id,
            r#type: stored.r#type,
            campaign_id: stored.campaign_id,
            creative_id: stored.creative_id,
            source: stored.source,
            user_id: stored.user_id,
            occurred_at: Some(prost_types::Timestamp {
                seconds: stored.millis.div_euclid(1_000),
                nanos: i32::try_from(stored.millis.rem_euclid(1_000)).unwrap_or_default() * 1_000_000,
            }),
            seq: 0,
            properties: String::new(),
        };
        Ok(stored.into_iter().map(event).collect())
    }

    /// A connection of its own.
    pub(super) async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(GrpcEndpoint::from_shared(self.url.clone())?.tcp_nodelay(true).connect().await?)
    }

    /// Waits until everything acknowledged is in ClickHouse.
    pub(super) async fn settled(&self) -> anyhow::Result<()> {
        let mut segments = SegmentServiceClient::new(self.channel().await?);
        while !segments.list_segments(ListSegmentsRequest {}).await?.into_inner().segments.is_empty() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Puts rows into the service's tables without the service, spread over
    /// the time `span` that ended `ago`. They are made by ClickHouse, so it is
    /// quick. The service knows of them after [`Self::relearn_ids`].
    pub(super) async fn preload(&self, rows: u64, ago: Duration, span: Duration) -> anyhow::Result<()> {
        let (ago, span) = (ago.as_millis(), span.as_millis());
        for first in (0..rows.div_ceil(PRELOAD_BLOCK)).map(|block| block * PRELOAD_BLOCK) {
            let statement = format!(
                "INSERT INTO events ({}) SELECT 'default', toString(generateUUIDv7(number)), \
                 if(number % 30 = 0, 'click', 'impression'), \
                 'campaign_' || toString(toUInt32(pow(randCanonical(1), 2) * 1000)), \
                 'creative_' || toString(rand(2) % 200), ['web', 'ios', 'android', 'exchange'][1 + rand(3) % 4], \
                 'user_' || toString(rand(4) % 500000), \
                 now64(3, 'UTC') - toIntervalMillisecond({ago} + toUInt64({first} + number) * {span} / {rows}), \
                 0, '', 0, 18446744073709551615 - toUnixTimestamp64Micro(now64(6)) - number \
                 FROM numbers({})",
                crate::event_row::COLUMNS,
                PRELOAD_BLOCK.min(rows - first),
            );
            let insert = self.clickhouse().query_raw(&statement).with_setting("insert_deduplicate", "0");
            insert.with_setting("max_insert_threads", "2").execute().await?;
        }
        // Had they come over that time, all but the last minute would be.
        self.merged().await
    }

    /// Puts what the service's tables hold into the baseline's tables too.
    pub(super) async fn preload_baseline(&self) -> anyhow::Result<()> {
        #[derive(clickhouse::Row, serde::Deserialize)]
        struct Partition {
            table: String,
            partition_id: String,
        }
        let statement = format!(
            "SELECT DISTINCT table, partition_id FROM system.parts \
             WHERE active AND database = '{}' AND table IN ({STORE_TABLES})",
            self.endpoint.database
        );
        let partitions: Vec<Partition> = self.clickhouse().query_raw(&statement).fetch_all().await?;
        for Partition { table, partition_id } in partitions {
            let (ours, theirs) = (&self.endpoint.database, &self.baseline.database);
            // The files are shared until either side merges them.
            let statement =
                format!("ALTER TABLE {theirs}.{table} ATTACH PARTITION ID '{partition_id}' FROM {ours}.{table}");
            self.clickhouse().query_raw(&statement).execute().await?;
        }
        Ok(())
    }

    /// A client for the service's tables.
    pub(super) fn clickhouse(&self) -> Client {
        self.endpoint.client()
    }

    /// Processor time used so far.
    pub(super) fn cpu(&self) -> Cpu {
        let service = self.service.id();
        Cpu { service: cpu_seconds(service), engine: children(service).into_iter().map(cpu_seconds).sum() }
    }

    /// Resident memory of the service and of the engine, in megabytes.
    pub(super) fn memory_mb(&self) -> (f64, f64) {
        let service = self.service.id();
        (resident_mb(service), children(service).into_iter().map(resident_mb).sum())
    }
}

/// The engine, standing still.
pub(super) struct StoppedEngine {
    pids: Vec<rustix::process::Pid>,
}

impl Drop for StoppedEngine {
    fn drop(&mut self) {
        for pid in &self.pids {
            // It may have been ended meanwhile.
            let _ = rustix::process::kill_process(*pid, rustix::process::Signal::CONT);
        }
    }
}

/// Starts the service in this directory; with the addresses of the service and
/// of its ClickHouse.
async fn start_service(dir: &Path, settings: &[(String, String)]) -> anyhow::Result<(Child, String, String)> {
    let mut service = Command::new(std::env::current_exe()?)
        .args(["dev", "--listen", "127.0.0.1:0", "--clickhouse-http-port", "0", "--log-filter", "warn"])
        .arg("--data-dir")
        .arg(dir)
        .envs(settings.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the service")?;
    let stdout = service.stdout.take().context("no output of the service")?;
    let url = tokio::task::spawn_blocking(move || read_address(stdout)).await??;
    let port = std::fs::read_to_string(dir.join("clickhouse/http-port")).context("the engine's port")?;
    Ok((service, url, format!("http://127.0.0.1:{}", port.trim())))
}

/// Processor time that the service and its engine have used.
#[derive(Clone, Copy)]
pub(super) struct Cpu {
    /// Of the service, in seconds.
    pub(super) service: f64,
    /// Of the engine, in seconds.
    pub(super) engine: f64,
}

impl Drop for BenchService {
    fn drop(&mut self) {
        let _ = self.service.kill(); // It may have gone already.
        let _ = self.service.wait();
        // The engine ends when the service has gone; until then it may write.
        for _ in 0..100 {
            if std::fs::remove_dir_all(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Reads the address that `dev` prints when it is ready.
fn read_address(stdout: impl std::io::Read + Send + 'static) -> anyhow::Result<String> {
    let mut lines = BufReader::new(stdout).lines();
    let line = loop {
        let Some(line) = lines.next() else { bail!("the service ended before it was ready") };
        let line = line?;
        if line.contains("gRPC") {
            break line;
        }
    };
    let found = line.split_whitespace().find(|word| word.starts_with("http://"));
    let address = found.with_context(|| format!("no address in: {line}"))?.to_owned();
    // The rest is read to its end, so that the service never waits for us.
    std::thread::spawn(move || lines.for_each(drop));
    Ok(address)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

/// Processor time of a process, in its own code and in the kernel's; 0 where the
/// kernel does not tell. (proc(5): fields 14 and 15 of `stat`, in hundredths.)
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Resident memory as the kernel counts it; 0 where it does not tell.
fn resident_mb(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    kilobytes / 1_024.0
}
