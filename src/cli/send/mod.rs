//! `tallyhouse send`: sends NDJSON files and reports verdicts.
//!
//! `reader` gathers lines into batches, `sender` keeps a bounded number of them in flight until each is
//! answered, and [`report`] reports the results.

mod backoff;
pub mod in_flight;
pub mod ndjson;
mod progress;
mod reader;
pub mod report;
mod sender;
mod source_form;
pub mod unknown_fields;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::BufReader;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::progress::Progress;
use self::reader::BatchOptions;
pub use self::reader::Source;
use self::report::Report;
pub use self::report::{Files, Summary};
use self::sender::{Sender, SenderSettings};

use super::connection::Address;
use super::style::Style;
use super::time_args::parse_duration;
use crate::transport::proto::Durability;

/// How much of a source is read at a time, in bytes.
const READ_BYTES: usize = 256 << 10;

/// The file to send and how to report it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_long_help = "Exit codes:\n  \
        0    every line was accepted, or was there already (duplicate, conflict)\n  \
        1    everything was answered, but some lines were rejected; sending them\n       \
             again as they are is of no use\n  \
        2    failure: something was not answered or not decided; send it again\n  \
        130  interrupted by Ctrl-C, after the answers to what was read had come")]
pub struct SendArgs {
    /// The file; `-` for standard input.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    options: SendOptions,
    /// Write every rejected line to FILE, as NDJSON with line, event_id, code,
    /// errors and text.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Write every conflicting line to FILE, as NDJSON with line and event_id. Its id is stored
    /// with another payload, which stays.
    #[arg(long, value_name = "FILE")]
    conflicts: Option<PathBuf>,
    /// Show no progress bar and no messages about reconnects.
    #[arg(long, short)]
    quiet: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    json: bool,
}

/// Options of sending.
#[derive(Clone, Debug, clap::Args)]
pub struct SendOptions {
    /// Lines in a batch. An incomplete batch is sent after 200 ms.
    #[arg(long, default_value_t = 1_000, value_name = "LINES", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Batches that can wait for their answers at a time.
    #[arg(long, default_value_t = 16, value_name = "BATCHES", value_parser = clap::value_parser!(u16).range(1..=1_000))]
    in_flight: u16,
    /// Count an event as sent only when ClickHouse has it, so that any query
    /// made from then on counts it.
    #[arg(long)]
    stored: bool,
    /// Reject lines with unknown fields, instead of sending them without these fields.
    #[arg(long)]
    strict: bool,
    /// Give up after this time without progress. 0: never. (If the service cannot be reached at the
    /// start, the command fails at once.)
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = parse_duration)]
    retry_for: Duration,
}

impl SendOptions {
    /// Options with these values and no strict mode.
    pub const fn new(batch: u16, in_flight: u16, stored: bool, retry_for: Duration) -> Self {
        Self { batch, in_flight, stored, strict: false, retry_for }
    }

    fn sending(&self) -> SenderSettings {
        SenderSettings {
            durability: if self.stored { Durability::Stored } else { Durability::Logged },
            batches_in_flight_max: self.in_flight.into(),
            retry_for: Some(self.retry_for).filter(|retry_for| !retry_for.is_zero()),
        }
    }
}

impl SendArgs {
    fn files(&self) -> Files<'_> {
        Files { rejected: self.rejected.as_deref(), conflicts: self.conflicts.as_deref() }
    }

    /// Sends the file, and reports the verdicts.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let (source, bytes) = open(&self.file).await?;
        let stop = stop_on_interrupt();
        let progress = Progress::new(bytes, self.quiet);
        let (summary, result) =
            send(&self.address, source, &self.options, self.files(), &progress, stop.clone()).await?;
        progress.finish();
        if self.json {
            super::print_json(&summary.to_json())?;
        } else {
            super::print(&summary.render(report::SHOWN_MAX, Style::stdout()))?;
        }
        result?;
        Ok(match (stop.is_cancelled(), summary.counts.rejected) {
            (true, _) => ExitCode::from(super::EXIT_INTERRUPTED),
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(super::EXIT_NEGATIVE),
        })
    }
}

/// Sends the lines of a source. The summary is valid even if the inner result is an error. The
/// outer result is an error if nothing was sent.
pub async fn send(
    address: &Address,
    source: Source,
    options: &SendOptions,
    files: Files<'_>,
    progress: &Progress,
    stop: CancellationToken,
) -> anyhow::Result<(Summary, anyhow::Result<()>)> {
    let channel = address.connect().await?;
    let report = Report::new(files).context("cannot write the file of rejected or conflicting lines")?;
    let (lines_max, keep_text) = (options.batch.into(), report.wants_text());
    let gathering = BatchOptions { lines_max, keep_text, is_strict: options.strict };
    let (to, from) = mpsc::channel(1);
    let reading = tokio::spawn(reader::read(source, gathering, to, stop));
    let (summary, result) = Sender::new(channel, options.sending(), from, report, progress).run().await;
    if result.is_err() {
        // What sent is gone; what reads may wait for input that never comes.
        reading.abort();
        return Ok((summary, result));
    }
    let read = reading.await.context("the reader has died")?.context("cannot read the events");
    Ok((summary, read))
}

/// Opens a file or standard input, and returns its length if that is known.
pub async fn open(file: &Path) -> anyhow::Result<(Source, Option<u64>)> {
    if file == Path::new("-") {
        return Ok((Box::pin(BufReader::with_capacity(READ_BYTES, tokio::io::stdin())), None));
    }
    let context = || format!("cannot read {}", file.display());
    let opened = tokio::fs::File::open(file).await.with_context(context)?;
    let metadata = opened.metadata().await.with_context(context)?;
    anyhow::ensure!(!metadata.is_dir(), "cannot read {}: it is a directory", file.display());
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::pin(BufReader::with_capacity(READ_BYTES, opened)), bytes))
}

/// Ctrl-C ends reading; lines that were read are still sent. A second one ends the program.
pub(super) fn stop_on_interrupt() -> CancellationToken {
    let stop = CancellationToken::new();
    let to_cancel = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            to_cancel.cancel();
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(super::EXIT_INTERRUPTED.into());
            }
        }
    });
    stop
}
