//! `tallyhouse audit`: compares the rollups with the events.

use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::EXIT_NEGATIVE;
use super::connection::{Address, explain};
use super::repairs::{RepairsArgs, UndoArgs};
use super::sparkline::grouped;
use super::style::Style;
use super::table::Table;
use super::time_args::{self, Precision, WindowArgs};
use crate::transport::proto;
use crate::transport::proto::audit_response::Step;
use crate::transport::proto::audit_service_client::AuditServiceClient;

/// Differing keys that are shown for each rollup and hour.
const KEYS_SHOWN: usize = 5;

/// Audits hours, or manages repairs.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,
    #[command(flatten)]
    run: RunArgs,
}

/// Commands on repairs.
#[derive(Clone, Debug, clap::Subcommand)]
enum AuditCommand {
    /// List the repairs of the hours of a window.
    Repairs(RepairsArgs),
    /// Undo a repair.
    Undo(UndoArgs),
}

/// Audits the hours of a window.
#[derive(Clone, Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// Show what a repair would change. Add --confirm to apply it.
    #[arg(long)]
    repair: bool,
    /// Apply the repair: add counts that the rollups lack, and remove counts that are proven to be
    /// double.
    #[arg(long, requires = "repair")]
    confirm: bool,
    /// Also remove counts of up to this many events that are not stored, without proof that they
    /// were counted twice.
    #[arg(long, value_name = "EVENTS", default_value_t = 0, requires = "confirm")]
    take_unproven: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl AuditArgs {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            None => self.run.run().await,
            Some(AuditCommand::Repairs(args)) => args.run().await,
            Some(AuditCommand::Undo(args)) => args.run().await,
        }
    }
}

impl RunArgs {
    /// Runs the audit, shows its progress, and then the result.
    async fn run(self) -> anyhow::Result<ExitCode> {
        let window = self.window.window(time_args::now())?;
        let mut client = AuditServiceClient::new(self.address.connect().await?);
        let request = proto::AuditRequest { window, repair: self.confirm, unproven_removals_max: self.take_unproven };
        let answer = client.audit(request).await;
        let mut steps = answer.map_err(|status| explain(&status)).context("cannot audit")?.into_inner();
        let bar = bar();
        let mut hours = Vec::new();
        let mut summary = None;
        while let Some(step) = steps.message().await.map_err(|status| explain(&status)).context("the audit ended")? {
            match step.step {
                Some(Step::Hour(hour)) => {
                    bar.set_length(hour.hours_total.into());
                    bar.set_position(hour.hours_done.into());
                    if !matches!(hour.result(), proto::HourResult::Consistent | proto::HourResult::Expired) {
                        hours.push(hour);
                    }
                }
                Some(Step::Summary(last)) => summary = Some(last),
                None => {}
            }
        }
        bar.finish_and_clear();
        let summary = summary.context("the audit ended without a summary; audit again")?;
        if self.json {
            super::print_json(&to_json(&summary, &hours))?;
        } else {
            let mode = RepairMode { repair: self.repair, confirm: self.confirm };
            super::print(&render(&summary, &hours, mode, Style::stdout()))?;
        }
        Ok(if is_right(&summary) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NEGATIVE) })
    }
}

/// The requested repair.
#[derive(Clone, Copy, Debug, Default)]
struct RepairMode {
    repair: bool,
    confirm: bool,
}

/// The changes by a repair of these hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct RepairPlan {
    added: u64,
    taken: u64,
    /// The rest, by the rollup with the largest surplus in each hour.
    unproven: u64,
}

impl RepairPlan {
    fn of(hours: &[proto::AuditedHour]) -> Self {
        let mut plan = Self::default();
        for hour in hours {
            plan.added += hour.left.iter().map(|left| left.under).sum::<u64>();
            plan.taken += hour.left.iter().filter(|left| left.unproven == 0).map(|left| left.over).sum::<u64>();
            plan.unproven += hour.left.iter().map(|left| left.unproven).max().unwrap_or_default();
        }
        plan
    }
}

/// A progress bar on standard error, if that is a terminal.
fn bar() -> ProgressBar {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:32} {pos}/{len} hours, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

const fn is_right(summary: &proto::AuditSummary) -> bool {
    summary.different == 0 && summary.in_flight == 0 && summary.undetermined == 0 && summary.events_missing == 0
}

const fn result_name(result: proto::HourResult) -> &'static str {
    match result {
        proto::HourResult::Unspecified => "",
        proto::HourResult::Consistent => "consistent",
        proto::HourResult::Repaired => "repaired",
        proto::HourResult::Different => "different",
        proto::HourResult::InFlight => "in flight",
        proto::HourResult::Undetermined => "undetermined",
        proto::HourResult::EventsMissing => "events missing",
        proto::HourResult::Expired => "expired",
    }
}

pub(super) const fn rollup_name(rollup: proto::Rollup) -> &'static str {
    match rollup {
        proto::Rollup::Unspecified => "",
        proto::Rollup::CampaignMinutes => "campaign_minutes",
        proto::Rollup::TypeHours => "type_hours",
        proto::Rollup::UserDays => "user_days",
        proto::Rollup::UserMinutes => "user_minutes",
    }
}

pub(super) fn readable(at: Option<&prost_types::Timestamp>) -> String {
    at.map(|at| time_args::readable(time_args::from_proto(at), Precision::Minute)).unwrap_or_default()
}

fn render(summary: &proto::AuditSummary, hours: &[proto::AuditedHour], mode: RepairMode, paint: Style) -> String {
    let mut text =
        format!("{}\n", paint.bold(&format!("audit of {}", time_args::readable_window(summary.window.as_ref()))));
    if !hours.is_empty() {
        text.push_str(&table(hours).render(paint));
    }
    for hour in hours.iter().filter(|hour| !hour.reason.is_empty()) {
        text.push_str(&format!("{}: {}\n", readable(hour.hour.as_ref()), hour.reason));
    }
    let keys = keys(hours);
    if !keys.is_empty() {
        text.push_str(&format!("\n{}", keys.render(paint)));
    }
    text.push_str(&format!("\n{} events in {}: ", grouped(summary.ids), plural(summary.hours, "hour")));
    let counts = [
        (summary.consistent, "consistent"),
        (summary.repaired, "repaired"),
        (summary.different, "different"),
        (summary.in_flight, "in flight"),
        (summary.undetermined, "undetermined"),
        (summary.events_missing, "events missing"),
        (summary.expired, "expired"),
    ];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
    let line = counts.join(", ");
    text.push_str(&if is_right(summary) { paint.green(&line) } else { paint.red(&line) });
    text.push('\n');
    text.push_str(&advice(RepairPlan::of(hours), mode));
    text
}

/// What to do about remaining differences.
fn advice(plan: RepairPlan, mode: RepairMode) -> String {
    let RepairPlan { added, taken, unproven } = plan;
    let mut text = String::new();
    if added + taken > 0 && mode.repair && !mode.confirm {
        let (added, taken) = (grouped(added), grouped(taken));
        text.push_str(&format!("with --confirm, a repair adds {added} counts and removes {taken}\n"));
    } else if added + taken > 0 && !mode.repair {
        text.push_str("`tallyhouse audit --repair` shows what a repair would change\n");
    }
    if unproven > 0 {
        text.push_str(&format!(
            "{} events are counted and not stored, and nothing shows that they were counted twice: either events are\n\
             missing, or the counts are wrong. Only if the counts are wrong: --repair --confirm --take-unproven {unproven}\n",
            grouped(unproven)
        ));
    }
    text
}

fn plural(count: u32, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{} {noun}s", grouped(count.into())) }
}

/// The differences by hour and rollup.
fn table(hours: &[proto::AuditedHour]) -> Table {
    let mut table = Table::new().text("hour (UTC)").text("result").number("ids").text("rollup").number("keys");
    table = table.number("too few").number("too many").number("unproven");
    for hour in hours {
        let mut row = |rollup: &str, numbers: [String; 4]| {
            let [keys, under, over, unproven] = numbers;
            let (at, result) = (readable(hour.hour.as_ref()), result_name(hour.result()).to_owned());
            table.row([at, result, grouped(hour.ids), rollup.to_owned(), keys, under, over, unproven]);
        };
        for found in &hour.found {
            let numbers = [found.keys, found.under, found.over, found.unproven].map(grouped);
            row(rollup_name(found.rollup()), numbers);
        }
        if hour.found.is_empty() {
            row("", Default::default());
        }
    }
    table
}

/// The first keys that differ, or differed.
fn keys(hours: &[proto::AuditedHour]) -> Table {
    let mut table = Table::new().text("rollup").text("at (UTC)").text("campaign").text("user").text("type");
    table = table.number("events").number("counted");
    for found in hours.iter().flat_map(|hour| &hour.found) {
        for key in found.differences.iter().take(KEYS_SHOWN) {
            table.row([
                rollup_name(found.rollup()).to_owned(),
                readable(key.bucket.as_ref()),
                key.campaign_id.clone(),
                key.user_id.clone(),
                key.r#type.clone(),
                key.expected.to_string(),
                key.actual.to_string(),
            ]);
        }
    }
    table
}

fn to_json(summary: &proto::AuditSummary, hours: &[proto::AuditedHour]) -> Value {
    let window = summary.window.as_ref();
    json!({
        "from": window.and_then(|window| window.from.as_ref()).map(time_args::rfc3339),
        "to": window.and_then(|window| window.to.as_ref()).map(time_args::rfc3339),
        "hours": summary.hours,
        "ids": summary.ids,
        "consistent": summary.consistent,
        "repaired": summary.repaired,
        "different": summary.different,
        "in_flight": summary.in_flight,
        "undetermined": summary.undetermined,
        "events_missing": summary.events_missing,
        "expired": summary.expired,
        "findings": hours.iter().map(hour_json).collect::<Vec<_>>(),
    })
}

fn hour_json(hour: &proto::AuditedHour) -> Value {
    json!({
        "hour": hour.hour.as_ref().map(time_args::rfc3339),
        "result": result_name(hour.result()),
        "reason": hour.reason,
        "rows": hour.rows,
        "ids": hour.ids,
        "found": hour.found.iter().map(rollup_json).collect::<Vec<_>>(),
        "left": hour.left.iter().map(rollup_json).collect::<Vec<_>>(),
    })
}

fn rollup_json(found: &proto::RollupDifferences) -> Value {
    let differences = found.differences.iter().map(|key| {
        json!({
            "bucket": key.bucket.as_ref().map(time_args::rfc3339),
            "campaign_id": key.campaign_id,
            "user_id": key.user_id,
            "type": key.r#type,
            "expected": key.expected,
            "actual": key.actual,
        })
    });
    json!({
        "rollup": rollup_name(found.rollup()),
        "keys": found.keys,
        "under": found.under,
        "over": found.over,
        "unproven": found.unproven,
        "differences": differences.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hour(result: proto::HourResult) -> proto::AuditedHour {
        let key = proto::KeyDifference {
            bucket: Some(prost_types::Timestamp { seconds: 7_260, nanos: 0 }),
            user_id: "ann".to_owned(),
            expected: 3,
            actual: 5,
            ..Default::default()
        };
        let found = proto::RollupDifferences {
            rollup: proto::Rollup::UserMinutes.into(),
            keys: 1,
            under: 0,
            over: 2,
            differences: vec![key],
            unproven: 2,
        };
        let hour = Some(prost_types::Timestamp { seconds: 7_200, nanos: 0 });
        proto::AuditedHour {
            hour,
            ids: 1_000,
            result: result.into(),
            found: vec![found.clone()],
            left: vec![found],
            ..Default::default()
        }
    }

    #[test]
    fn what_is_wrong_is_shown_with_what_to_do() {
        let summary =
            proto::AuditSummary { hours: 2, ids: 2_000, consistent: 1, events_missing: 1, ..Default::default() };
        let hours = [hour(proto::HourResult::EventsMissing)];
        let text = render(&summary, &hours, RepairMode::default(), Style::plain());
        let line = "1970-01-01 02:00  events missing  1,000  user_minutes     1        0         2         2";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("user_minutes  1970-01-01 02:01            ann              3        5"), "{text}");
        assert!(text.contains("2,000 events in 2 hours: 1 consistent, 1 events missing\n"), "{text}");
        assert!(text.contains("--repair --confirm --take-unproven 2\n"), "{text}");
    }

    #[test]
    fn a_repair_is_shown_before_it_is_confirmed() {
        let check = |mode: RepairMode, expected: &str| {
            assert_eq!(advice(RepairPlan { added: 1_200, taken: 3, unproven: 0 }, mode), expected, "{mode:?}");
        };
        check(RepairMode::default(), "`tallyhouse audit --repair` shows what a repair would change\n");
        let preview = RepairMode { repair: true, confirm: false };
        check(preview, "with --confirm, a repair adds 1,200 counts and removes 3\n");
        check(RepairMode { confirm: true, ..preview }, "");
    }

    #[test]
    fn only_what_is_known_to_be_right_is_right() {
        let check = |summary: proto::AuditSummary, expected: bool| assert_eq!(is_right(&summary), expected);
        check(proto::AuditSummary { consistent: 3, repaired: 1, ..Default::default() }, true);
        check(proto::AuditSummary { different: 1, ..Default::default() }, false);
        check(proto::AuditSummary { in_flight: 1, ..Default::default() }, false);
        check(proto::AuditSummary { undetermined: 1, ..Default::default() }, false);
        check(proto::AuditSummary { events_missing: 1, ..Default::default() }, false);
        check(proto::AuditSummary { consistent: 1, expired: 1, ..Default::default() }, true);
    }
}
