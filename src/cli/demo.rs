//! `tallyhouse demo`: sends sample events to a service and queries the counts.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::connection::{Address, Connection};
use super::sample::{Expected, Sample};
use super::send::{self, Files, Progress, SendOptions, Summary};
use super::sparkline::grouped;
use super::stats::Granularity;
use super::style::Style;
use super::time_args;
use super::{stats, top, users};
use crate::domain::{MILLIS_PER_DAY, Timestamp};
use crate::transport::proto;

/// Large batches: answers wait for ClickHouse, so small ones would be slow.
const BATCH_LINES: u16 = 5_000;
const BATCHES_IN_FLIGHT: u16 = 16;
const RETRY_FOR: Duration = Duration::from_secs(60);
/// How many of the rejected lines are shown.
const REJECTED_SHOWN_MAX: usize = 4;
/// The number of campaigns to query to find those of the sample.
const CAMPAIGNS_MAX: u32 = 1_000;

/// The sample to send.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    #[command(flatten)]
    address: Address,
    /// How many lines to generate.
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    events: u64,
    /// The seed. The same seed and --until give the same sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The end of the sample's day. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time_args::parse_time)]
    until: Option<Timestamp>,
    /// The file to write the sample to. Default: a new file in the directory for temporary files.
    /// The file is kept.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// Show no progress bar.
    #[arg(long, short)]
    quiet: bool,
}

/// The numbers of expected verdicts of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SampleCounts {
    accepted: u64,
    duplicate: u64,
    conflict: u64,
    rejected: u64,
}

impl DemoArgs {
    /// Generates and sends the sample, and shows the counts.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let paint = Style::stdout();
        // Before anything is made: is a service running at all?
        let channel = self.address.connect().await?;
        let until = self.until.unwrap_or_else(time_args::now);
        let file = self.to.clone().unwrap_or_else(|| temporary_file(until));
        let made = write(Sample::new(self.seed, until, self.events), &file)
            .with_context(|| format!("cannot write the sample to {}", file.display()))?;
        super::print(&made.describe(&file, self.events, paint))?;

        let before = counted(channel.clone(), until).await?;
        let (summary, result) = self.send(&file).await?;
        super::print(&format!("\n{}\n", summary.render(REJECTED_SHOWN_MAX, paint)))?;
        result?;
        let after = counted(channel.clone(), until).await?;
        let (is_right, finding) = check(&made, &summary, before, after);
        let finding = format!("{} {finding}\n", if is_right { "checked:" } else { "not as expected:" });
        super::print(&if is_right { paint.green(&finding) } else { paint.red(&finding) })?;

        look_around(channel, until, paint).await?;
        super::print(&hints(&file, paint))?;
        Ok(if is_right { ExitCode::SUCCESS } else { ExitCode::from(super::EXIT_NEGATIVE) })
    }

    async fn send(&self, file: &Path) -> anyhow::Result<(Summary, anyhow::Result<()>)> {
        let (source, bytes) = send::open(file).await?;
        let progress = Progress::new(bytes, self.quiet);
        // The service is asked right afterwards, so it must have stored everything.
        let options = SendOptions::new(BATCH_LINES, BATCHES_IN_FLIGHT, true, RETRY_FOR);
        let stop = CancellationToken::new();
        let sent = send::send(&self.address, source, &options, Files::default(), &progress, stop).await?;
        progress.finish();
        Ok(sent)
    }
}

fn temporary_file(until: Timestamp) -> PathBuf {
    let name = format!("tallyhouse-demo-{}-{}.ndjson", until.millis(), std::process::id());
    std::env::temp_dir().join(name)
}

fn write(sample: Sample, file: &Path) -> std::io::Result<SampleCounts> {
    let mut out = BufWriter::new(File::create(file)?);
    let mut made = SampleCounts::default();
    for item in sample {
        writeln!(out, "{}", item.line())?;
        match item.expected {
            Expected::Accepted => made.accepted += 1,
            Expected::Duplicate => made.duplicate += 1,
            Expected::Conflict => made.conflict += 1,
            Expected::Rejected => made.rejected += 1,
        }
    }
    out.flush()?;
    Ok(made)
}

impl SampleCounts {
    fn describe(&self, file: &Path, lines: u64, paint: Style) -> String {
        format!(
            "{} {} lines in {}:\n{} valid events with ids of their own, {} repeated, {} contradicting an earlier \
             one, {} that are no events\n",
            paint.bold("made"),
            grouped(lines),
            file.display(),
            grouped(self.accepted),
            grouped(self.duplicate),
            grouped(self.conflict),
            grouped(self.rejected),
        )
    }
}

/// How many events of the sample's campaigns the service has counted in the
/// sample's window.
async fn counted(channel: Connection, until: Timestamp) -> anyhow::Result<u64> {
    let (from, to) = Sample::window(until);
    let answer = top::campaigns(channel, Some(window(from, to)), CAMPAIGNS_MAX).await?;
    let is_ours = |campaign: &&proto::CampaignCount| Sample::campaign_ids().any(|id| id == campaign.campaign_id);
    Ok(answer.campaigns.iter().filter(is_ours).map(|campaign| campaign.events).sum())
}

fn window(from: Timestamp, to: Timestamp) -> proto::Window {
    proto::Window { from: Some(time_args::to_proto(from)), to: Some(time_args::to_proto(to)) }
}

/// Compares the counts with the sample, and describes the result.
fn check(made: &SampleCounts, summary: &Summary, before: u64, after: u64) -> (bool, String) {
    let (counts, more) = (&summary.counts, after.saturating_sub(before));
    let known = counts.accepted + counts.duplicate + counts.conflict;
    let (distinct, accepted) = (grouped(made.accepted), grouped(counts.accepted));
    if counts.rejected != made.rejected || known != made.accepted + made.duplicate + made.conflict {
        let text = format!("{} rejected of {} that are no events", grouped(counts.rejected), grouped(made.rejected));
        return (false, text);
    }
    if counts.accepted == made.accepted && more == made.accepted {
        return (
            true,
            format!("{distinct} distinct valid ids sent, {accepted} accepted, {} more counted", grouped(more)),
        );
    }
    if counts.accepted == 0 && more == 0 {
        return (
            true,
            format!("all of the {distinct} distinct valid ids were already stored; nothing was counted again"),
        );
    }
    // An answer that was lost comes back as a duplicate, and its events are
    // counted all the same.
    if summary.reconnects > 0 && counts.accepted <= made.accepted && more == made.accepted {
        let reconnects = grouped(summary.reconnects);
        let text =
            format!("{distinct} distinct valid ids sent, {} more counted, with {reconnects} reconnects", grouped(more));
        return (true, text);
    }
    let text = format!("{distinct} distinct valid ids sent, {accepted} accepted, {} more counted", grouped(more));
    (false, text + " (part of the sample may have been stored before, or another producer is sending)")
}

async fn look_around(channel: Connection, until: Timestamp, paint: Style) -> anyhow::Result<()> {
    let now = time_args::now();
    let end = until.plus_millis(1);
    let day = || window(end.plus_millis(-MILLIS_PER_DAY), end);
    let campaigns = top::campaigns(channel.clone(), Some(day()), 10).await?;
    super::print(&format!("\n{}", top::render_campaigns(&campaigns, paint, now)))?;
    if let Some(biggest) = campaigns.campaigns.first() {
        let stats = stats::ask(channel.clone(), &biggest.campaign_id, day(), Granularity::Hour).await?;
        super::print(&format!("\n{}", stats::render(&stats, Granularity::Hour, paint, now)))?;
    }
    let top_users = top::users(channel.clone(), Some(day()), 10).await?;
    super::print(&format!("\n{}", top::render_users(&top_users, paint, now)))?;
    let daily = users::ask(channel, window(end.plus_millis(-7 * MILLIS_PER_DAY), end)).await?;
    super::print(&format!("\n{}", users::render(&daily, paint, now)))?;
    Ok(())
}

fn hints(file: &Path, paint: Style) -> String {
    let campaign = Sample::campaign_ids().next().unwrap_or_default();
    let hints = [
        (format!("tallyhouse send {}", file.display()), "send it again: nothing is counted twice"),
        (format!("tallyhouse stats {campaign} --last 1h"), "the last hour, minute by minute"),
        (format!("tallyhouse events --campaign {campaign} --limit 5"), "the newest events"),
        ("tallyhouse watch".to_owned(), "verdicts as they are made; send in another terminal"),
    ];
    let mut text = format!("\n{}\n", paint.bold("next:"));
    for (command, meaning) in hints {
        text.push_str(&format!("  {command}\n      {}\n", paint.dim(meaning)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::send::report::Counts;

    const MADE: SampleCounts = SampleCounts { accepted: 90, duplicate: 5, conflict: 2, rejected: 3 };

    #[test]
    fn the_service_is_believed_only_when_the_counts_add_up() {
        let check = |counts: [u64; 4], reconnects: u64, more: u64| {
            let [accepted, duplicate, conflict, rejected] = counts;
            let counts = Counts { accepted, duplicate, conflict, rejected, ..Counts::default() };
            check(&MADE, &Summary { counts, reconnects, ..Summary::default() }, 1_000, 1_000 + more).0
        };
        assert!(check([90, 5, 2, 3], 0, 90), "all new");
        assert!(check([0, 95, 2, 3], 0, 0), "all there already");
        assert!(check([80, 15, 2, 3], 1, 90), "an answer was lost");
        assert!(!check([80, 15, 2, 3], 0, 90), "duplicates out of nowhere");
        assert!(!check([90, 5, 2, 3], 0, 89), "one is not counted");
        assert!(!check([91, 4, 2, 3], 0, 91), "one is counted twice");
        assert!(!check([90, 5, 2, 2], 0, 90), "one has no verdict");
    }

    #[test]
    fn what_is_written_is_what_was_made() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let until = Timestamp::from_millis(1_770_757_653_120);
        let made = write(Sample::new(1, until, 2_000), file.path()).unwrap();
        assert_eq!(made.accepted + made.duplicate + made.conflict + made.rejected, 2_000);
        assert!(made.duplicate > 0 && made.conflict > 0 && made.rejected > 0);
        assert_eq!(std::fs::read_to_string(file.path()).unwrap().lines().count(), 2_000);
    }
}
