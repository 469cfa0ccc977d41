//! `tallyhouse-bench` measures the speed and the memory of a service, each against ClickHouse alone.
//!
//! Everything runs on this machine in one run: load generator, service and
//! embedded ClickHouse. Machines differ and are shared, so each figure comes
//! with a baseline measured in turns with it, and what matters is the ratio.
//! The service is the `tallyhouse` program, as its users run it.

mod bars;
mod cliff;
mod connection;
mod cost;
mod deliveries;
mod events;
mod freshness;
mod ingest;
mod late;
mod ledger;
mod load;
mod outage;
mod questions;
mod report;
mod scattered;
mod service;
mod single;
mod start;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use cost::Cost;
use report::Report;
use serde::Deserialize;
use service::BenchService;
use tokio::signal::unix::{SignalKind, signal};

/// The allocator of the service: its clients and its baseline's spend alike.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code when something could not be measured; also of a wrong command line.
const EXIT_FAILURE: u8 = 2;

/// Rounds of measurements that alternate with their baseline.
const ROUNDS: u32 = 3;
/// Events streamed for each second of the run, in each round: many segments, so
/// that neither the first nor the last insert of a round weighs much.
const EVENTS_PER_SECOND: u64 = 40_000;
/// Late events are a quarter of that: they need twice as many that are stored.
const LATE_SHARE: usize = 4;
/// So are those of one minute, which are streamed three times a round.
const CLIFF_SHARE: usize = 4;
/// And those that are delivered, which takes longer than to stream them.
const DELIVERIES_SHARE: usize = 4;

/// Over how long a time the rows are spread that are filled in before.
const PRELOAD_SPAN: Duration = Duration::from_secs(24 * 3_600);

/// Measure speed and memory, each against ClickHouse alone.
///
/// Load generator, service and embedded ClickHouse all run on this machine, in one run. Machines differ and are shared: compare
/// the ratios.
#[derive(clap::Parser)]
#[command(name = "tallyhouse-bench", version)]
struct BenchArgs {
    /// About how long to measure streams, single calls, questions and load, in
    /// seconds. 40 gives a usable answer.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(5..))]
    seconds: u64,
    /// Events to stream in each of three rounds. Default: 40,000 for each
    /// second.
    #[arg(long)]
    events: Option<usize>,
    /// Measure only this. Can be given more than once.
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Rows to put into the tables before, spread over the last 24 hours: how
    /// it is when much is stored.
    #[arg(long, default_value_t = 0)]
    preload: u64,
    /// Stop ClickHouse for so many seconds under a load of 10,000 events a
    /// second.
    #[arg(long, default_value_t = 0)]
    outage: u64,
    /// Events in a batch of the measurement of costs.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// Print the rows of the table of sizes, computed from the measured costs, instead of figures. Requires `--only cost`.
    #[arg(long, conflicts_with = "json", requires = "only")]
    sizes: bool,
    /// Print the figures as one JSON object.
    #[arg(long)]
    json: bool,
    /// A directory for the data; it is emptied afterwards. Default: one in the
    /// directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// The `tallyhouse` program to measure. Default: the one in the directory of this program.
    #[arg(long, value_name = "PROGRAM")]
    service: Option<PathBuf>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// Streams, against bare inserts.
    Ingest,
    /// Single calls, against asynchronous inserts.
    Single,
    /// Questions, against grouping the raw events.
    Questions,
    /// Streams with other shares of duplicates.
    Duplicates,
    /// Acknowledgement and freshness at 10,000 events a second.
    Load,
    /// Late events.
    Late,
    /// Many events of one minute or of one date.
    Cliff,
    /// Deliveries: pulled, by webhooks and to Redis.
    Deliveries,
    /// From the start of the process to its readiness.
    Start,
    /// Processor time, bytes and memory of a million events. Measured only when it is named.
    Cost,
}

fn main() -> ExitCode {
    let args = BenchArgs::parse();
    let ran = tokio::runtime::Runtime::new().context("cannot start the runtime").and_then(|it| it.block_on(args.run()));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tallyhouse-bench: {}", tallyhouse::cli::in_words(&error));
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

impl BenchArgs {
    /// Runs the benchmark. A signal ends it early, and its processes with it.
    async fn run(self) -> anyhow::Result<()> {
        let parent = self.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dir = parent.join(format!("tallyhouse-bench-{}", std::process::id()));
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let report = tokio::select! {
            report = self.report(&dir) => report,
            _ = terminate.recv() => Err(anyhow::anyhow!("stopped by a signal")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by a signal")),
        };
        let _ = std::fs::remove_dir_all(&dir); // It may not have been made.
        let (report, cost) = report?;
        let text = match cost {
            Some(cost) if self.sizes => cost.rows(),
            _ if self.json => format!("{:#}\n", report.json()),
            _ => report.text(),
        };
        std::io::stdout().write_all(text.as_bytes()).context("cannot write the output")
    }

    async fn report(&self, dir: &Path) -> anyhow::Result<(Report, Option<Cost>)> {
        let program = self.program()?;
        let mut report = Report::default();
        anyhow::ensure!(!self.sizes || self.only == [Section::Cost], "--sizes requires --only cost");
        if self.only != [Section::Cost] {
            self.measure_speed(&program, dir, &mut report).await?;
        }
        if !self.only.contains(&Section::Cost) {
            return Ok((report, None));
        }
        say("what events cost");
        let (events, batch) = (self.events()?, usize::try_from(self.batch)?);
        let slow = Duration::from_secs(self.seconds) / 2;
        let cost = cost::measure(&program, dir, (events, batch), slow, &mut report).await?;
        Ok((report, Some(cost)))
    }

    async fn measure_speed(&self, program: &Path, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
        let mut service = BenchService::start(program, dir.join("service"), &[]).await?;
        if self.has(Section::Start) {
            say("starting with nothing stored");
            start::measure(&mut service, ROUNDS, report).await?;
        }
        if self.preload > 0 {
            say("filling the tables");
            service.preload(self.preload, Duration::ZERO, PRELOAD_SPAN).await?;
            service.preload_baseline().await?;
            service.relearn_ids().await?;
            ledger::measure(&service, report).await?;
            if self.has(Section::Start) {
                say("starting with what was filled in");
                start::measure_preloaded(&mut service, ROUNDS, report).await?;
            }
        }
        self.measure(&service, report).await?;
        drop(service);
        self.measure_apart(program, dir, report).await
    }

    /// What needs services with settings of their own.
    async fn measure_apart(&self, program: &Path, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
        let events = self.events()?;
        if self.has(Section::Late) {
            say("late events");
            late::measure(program, dir, events / LATE_SHARE, report).await?;
        }
        if self.has(Section::Cliff) {
            say("events of one minute, in turns with those of a day");
            cliff::measure(program, dir, ROUNDS, events / CLIFF_SHARE, report).await?;
        }
        if self.has(Section::Deliveries) {
            say("deliveries, in turns with ingest alone, a bare client and bare commands");
            deliveries::measure(program, dir, ROUNDS, events / DELIVERIES_SHARE, report).await?;
        }
        Ok(())
    }

    /// The program to measure.
    fn program(&self) -> anyhow::Result<PathBuf> {
        let program = match &self.service {
            Some(program) => program.clone(),
            None => std::env::current_exe()?.with_file_name("tallyhouse"),
        };
        anyhow::ensure!(
            program.is_file(),
            "there is no program {}: build it, or name it with --service",
            program.display()
        );
        Ok(program)
    }

    fn events(&self) -> anyhow::Result<usize> {
        Ok(self.events.unwrap_or(usize::try_from(self.seconds * EVENTS_PER_SECOND)?))
    }

    fn has(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }

    async fn measure(&self, service: &BenchService, report: &mut Report) -> anyhow::Result<()> {
        let events = self.events()?;
        // A fiftieth of the run is the share of one way of one round.
        let share = Duration::from_secs(self.seconds) / 50;
        if self.has(Section::Ingest) {
            say("streaming, in turns with bare inserts");
            ingest::measure(service, ROUNDS, events, report).await?;
            if self.has(Section::Questions) {
                questions::measure_unmerged(service, report).await?;
            }
        }
        if self.has(Section::Single) {
            say("single calls, in turns with asynchronous inserts");
            single::measure(service, ROUNDS, share * 2, report).await?;
            service.settled().await?;
        }
        if self.has(Section::Questions) {
            say("questions, in turns with grouping the raw events");
            questions::measure(service, ROUNDS, share, report).await?;
        }
        if self.has(Section::Duplicates) {
            say("other shares of duplicates");
            ingest::measure_duplicates(service, events, report).await?;
        }
        if self.has(Section::Load) {
            say("freshness at 10,000 events a second");
            questions::measure_freshness(service, share * 8, report).await?;
        }
        if self.outage > 0 {
            say("an outage of ClickHouse");
            outage::measure(service, Duration::from_secs(self.outage), report).await?;
        }
        let (service_mb, engine_mb) = service.memory_mb();
        report.add("service_rss_mb", service_mb, "MB");
        report.add("engine_rss_mb", engine_mb, "MB");
        sizes(service, report).await
    }
}

#[derive(clickhouse::Row, Deserialize)]
struct Sizes {
    events: u64,
    raw_bytes: u64,
    all_bytes: u64,
}

/// Bytes on disk per event: of the raw table, and with all rollups.
#[allow(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
async fn sizes(service: &BenchService, report: &mut Report) -> anyhow::Result<()> {
    service.settled().await?;
    let sizes: Sizes = service
        .clickhouse()
        .query_raw(
            "SELECT sumIf(rows, table = 'events') AS events, sumIf(bytes_on_disk, table = 'events') AS raw_bytes, \
             sum(bytes_on_disk) AS all_bytes FROM system.parts WHERE active AND database = 'tallyhouse'",
        )
        .fetch_one()
        .await?;
    report.add("stored_events", sizes.events as f64, "events");
    if sizes.events == 0 {
        return Ok(());
    }
    report.add("bytes_per_event", sizes.raw_bytes as f64 / sizes.events as f64, "bytes");
    report.add("bytes_per_event_with_rollups", sizes.all_bytes as f64 / sizes.events as f64, "bytes");
    Ok(())
}

/// Tells a person what is going on.
fn say(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("… {what}");
    }
}
