//! The service under test: a child process with its own embedded ClickHouse,
//! in a directory that goes when the benchmark is over.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clickhouse::Client;
use tallyhouse::clickhouse::client::Endpoint;
use tallyhouse::clickhouse::engine::spread_parts;
use tallyhouse::clickhouse::migrations::migrate;
use tallyhouse::clickhouse::store::TABLES as STORE_TABLES;
use tallyhouse::config::Secret;
use tallyhouse::transport::proto::segment_service_client::SegmentServiceClient;
use tallyhouse::transport::proto::{self, ListSegmentsRequest};
use tallyhouse_testkit::process::{Signal, children, signal};
use tallyhouse_testkit::{Mode, Service, ServiceCommand};
use tokio::task::block_in_place;
use tonic::transport::{Channel, Endpoint as GrpcEndpoint};

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

/// A running service, and the tables of the baseline beside its own. Dropping it ends it, and deletes its directory.
pub(crate) struct BenchService {
    service: Service,
    /// The address of gRPC and REST.
    pub(crate) url: String,
    /// How to reach the service's tables.
    pub(crate) endpoint: Endpoint,
    /// How to reach the baseline's tables.
    pub(crate) baseline: Endpoint,
}

/// How a service is ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// As an operator would: SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
}

impl BenchService {
    /// Starts the program with these settings (as environment variables), and
    /// makes the baseline's tables.
    pub(crate) async fn start(program: &Path, dir: PathBuf, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let command = ServiceCommand::new(program, Mode::Dev, dir).with_settings([("TALLYHOUSE_LOG_FILTER", "warn")]);
        let mut service = Service::new(command.with_settings(settings.iter().copied()));
        block_in_place(|| service.start())?;
        let endpoint = Endpoint {
            url: service.engine_url()?,
            user: "tallyhouse".to_owned(),
            password: Secret::new(service.engine_password()?),
            database: "tallyhouse".to_owned(),
        };
        let baseline = Endpoint { database: BASELINE.to_owned(), ..endpoint.clone() };
        migrate(&baseline).await?;
        spread_parts(service.data_dir());
        Ok(Self { url: service.addresses().main.clone(), service, endpoint, baseline })
    }

    /// Ends the service as an operator would, and starts it again without its
    /// id ledger: it reads the ids of what is stored, which is waited for.
    pub(crate) async fn relearn_ids(&mut self) -> anyhow::Result<()> {
        self.end(Ending::Stop)?;
        std::fs::remove_dir_all(self.service.data_dir().join("ledger"))?;
        self.start_again()?;
        while reqwest::get(format!("{}/readyz", self.url)).await?.text().await?.contains("LEDGER_INCOMPLETE") {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Ends the service, and starts it again with everything that it has on disk. Returns the time from the start of its
    /// process until it says that it is ready.
    pub(crate) async fn restart(&mut self, ending: Ending) -> anyhow::Result<Duration> {
        self.end(ending)?;
        let begun = Instant::now();
        self.start_again()?;
        while !reqwest::get(format!("{}/readyz", self.url)).await?.status().is_success() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(begun.elapsed())
    }

    fn end(&mut self, ending: Ending) -> anyhow::Result<()> {
        match ending {
            Ending::Stop => {
                let ended = block_in_place(|| self.service.stop())?;
                anyhow::ensure!(ended.success(), "the service ended with {ended}");
            }
            Ending::Kill => block_in_place(|| self.service.kill())?,
        }
        Ok(())
    }

    /// Starts the process, which listens on other ports than before.
    fn start_again(&mut self) -> anyhow::Result<()> {
        block_in_place(|| self.service.start())?;
        self.url.clone_from(&self.service.addresses().main);
        self.endpoint.url = self.service.engine_url()?;
        self.baseline.url.clone_from(&self.endpoint.url);
        Ok(())
    }

    /// What the service says at `/metrics`, in the text format of Prometheus.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        Ok(reqwest::get(format!("{}/metrics", self.url)).await?.error_for_status()?.text().await?)
    }

    /// Stops ClickHouse, as a machine that hangs would, until the answer is
    /// dropped.
    pub(crate) fn stop_engine(&self) -> anyhow::Result<StoppedEngine> {
        let pids = self.engine_pids();
        anyhow::ensure!(!pids.is_empty(), "the engine was not found");
        for pid in &pids {
            signal(*pid, Signal::STOP)?;
        }
        Ok(StoppedEngine { pids })
    }

    /// Waits until ClickHouse has merged what was inserted. The users' days are
    /// merged now: else that is done once they are a minute old, within
    /// whatever is measured then.
    pub(crate) async fn merged(&self) -> anyhow::Result<()> {
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
    pub(crate) async fn unstored_events(&self) -> anyhow::Result<u64> {
        let mut segments = SegmentServiceClient::new(self.channel().await?);
        let segments = segments.list_segments(ListSegmentsRequest {}).await?.into_inner().segments;
        Ok(segments.iter().map(|segment| segment.rows).sum())
    }

    /// Rows of the service's raw table.
    pub(crate) async fn count_events(&self) -> anyhow::Result<u64> {
        Ok(self.clickhouse().query_raw("SELECT count() FROM events").fetch_one().await?)
    }

    /// So many of the events that were filled in for a day that ended `ago`,
    /// as a producer would send them again.
    pub(crate) async fn stored_events(&self, events: usize, ago: Duration) -> anyhow::Result<Vec<proto::Event>> {
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
    pub(crate) async fn channel(&self) -> anyhow::Result<Channel> {
        Ok(GrpcEndpoint::from_shared(self.url.clone())?.tcp_nodelay(true).connect().await?)
    }

    /// Waits until everything acknowledged is in ClickHouse.
    pub(crate) async fn settled(&self) -> anyhow::Result<()> {
        let mut segments = SegmentServiceClient::new(self.channel().await?);
        while !segments.list_segments(ListSegmentsRequest {}).await?.into_inner().segments.is_empty() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// Puts rows into the service's tables without the service, spread over
    /// the time `span` that ended `ago`. They are made by ClickHouse, so it is
    /// quick. The service knows of them after [`Self::relearn_ids`].
    pub(crate) async fn preload(&self, rows: u64, ago: Duration, span: Duration) -> anyhow::Result<()> {
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
                tallyhouse::event_row::COLUMNS,
                PRELOAD_BLOCK.min(rows - first),
            );
            let insert = self.clickhouse().query_raw(&statement).with_setting("insert_deduplicate", "0");
            insert.with_setting("max_insert_threads", "2").execute().await?;
        }
        // Had they come over that time, all but the last minute would be.
        self.merged().await
    }

    /// Puts what the service's tables hold into the baseline's tables too.
    pub(crate) async fn preload_baseline(&self) -> anyhow::Result<()> {
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
    pub(crate) fn clickhouse(&self) -> Client {
        self.endpoint.client()
    }

    /// Processor time used so far.
    pub(crate) fn cpu(&self) -> Cpu {
        let service = self.service.pid().map_or(0.0, cpu_seconds);
        Cpu { service, engine: self.engine_pids().into_iter().map(cpu_seconds).sum() }
    }

    /// Resident memory of the service and of the engine, in megabytes.
    pub(crate) fn memory_mb(&self) -> (f64, f64) {
        let service = self.service.pid().map_or(0.0, resident_mb);
        (service, self.engine_pids().into_iter().map(resident_mb).sum())
    }

    /// What the service and its ClickHouse have used since their start.
    ///
    /// # Errors
    /// When the kernel does not tell, as it does on Linux.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let service = self.service.pid().context("the service is down")?;
        let engine = self.engine_pids();
        anyhow::ensure!(engine.len() == 1, "the engine was not found");
        Ok(Usage { service: ProcessUsage::of(service)?, engine: ProcessUsage::of(engine[0])? })
    }

    /// Bytes of the service's tables on disk, each row once.
    pub(crate) async fn stored_bytes(&self) -> anyhow::Result<f64> {
        let statement = format!(
            "SELECT toFloat64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = '{}'",
            self.endpoint.database
        );
        Ok(self.clickhouse().query_raw(&statement).fetch_one().await?)
    }

    /// Events of the log that ClickHouse does not have, and their bytes.
    #[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
    pub(crate) async fn logged(&self) -> anyhow::Result<(f64, f64)> {
        let mut segments = SegmentServiceClient::new(self.channel().await?);
        let segments = segments.list_segments(ListSegmentsRequest {}).await?.into_inner().segments;
        let sum = |of: fn(&proto::Segment) -> u64| segments.iter().map(of).sum::<u64>() as f64;
        Ok((sum(|segment| segment.rows), sum(|segment| segment.bytes)))
    }

    /// Bytes of the id ledger on disk for each id in it, once it has so many.
    pub(crate) async fn ledger_bytes_per_id(&self, ids_min: f64) -> anyhow::Result<f64> {
        let begun = Instant::now();
        loop {
            let text = reqwest::get(format!("{}/metrics", self.url)).await?.text().await?;
            let value = |name: &str| -> anyhow::Result<f64> {
                let line = text.lines().find_map(|line| line.strip_prefix(name));
                Ok(line.with_context(|| format!("there is no {name}"))?.trim().parse()?)
            };
            let ids = value("tallyhouse_ledger_ids ")?;
            anyhow::ensure!(begun.elapsed() < MERGE_WAIT_MAX, "the id ledger has {ids} ids only");
            if ids >= ids_min {
                return Ok(value("tallyhouse_ledger_size_bytes ")? / ids);
            }
            tokio::time::sleep(MERGE_LOOK_PAUSE).await;
        }
    }

    fn engine_pids(&self) -> Vec<u32> {
        self.service.pid().map(children).unwrap_or_default()
    }
}

/// The engine, standing still.
pub(crate) struct StoppedEngine {
    pids: Vec<u32>,
}

impl Drop for StoppedEngine {
    fn drop(&mut self) {
        for pid in &self.pids {
            let _ = signal(*pid, Signal::CONT); // It may have been ended meanwhile.
        }
    }
}

/// Processor time that the service and its engine have used.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    /// Of the service, in seconds.
    pub(crate) service: f64,
    /// Of the engine, in seconds.
    pub(crate) engine: f64,
}

/// What the service and its engine have used since their start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) service: ProcessUsage,
    pub(crate) engine: ProcessUsage,
}

/// What a process has used since its start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessUsage {
    /// Processor time in seconds.
    pub(crate) cpu_seconds: f64,
    /// Bytes that it had the kernel send to a disk; none of them where the files are in memory.
    pub(crate) written_bytes: f64,
    /// Its largest resident memory in megabytes.
    pub(crate) memory_peak_mb: f64,
}

impl ProcessUsage {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).context("what was written is not known")?;
        let written = io.lines().find_map(|line| line.strip_prefix("write_bytes:")).context("no write_bytes")?;
        Ok(Self {
            cpu_seconds: cpu_seconds(pid),
            written_bytes: written.trim().parse()?,
            memory_peak_mb: memory_mb(pid, "VmHWM:"),
        })
    }
}

impl Drop for BenchService {
    fn drop(&mut self) {
        eprint!("{}", self.service.stderr()); // Warnings and errors only.
        let _ = self.service.kill(); // It may have gone already.
        // The engine ends when the service has gone; until then it may write.
        for _ in 0..100 {
            if std::fs::remove_dir_all(self.service.data_dir()).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
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
    memory_mb(pid, "VmRSS:")
}

/// A size of a process in megabytes, by its name in proc(5); 0 where the kernel does not tell.
fn memory_mb(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kilobytes: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default();
    kilobytes / 1_024.0
}
