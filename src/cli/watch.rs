//! `tallyhouse watch`: shows verdicts as they occur.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::connection::{Address, explain};
use super::send::report::code_name;
use super::sparkline::grouped;
use super::style::{Style, printable};
use super::time_args::{self, Precision};
use crate::transport::proto;
use crate::transport::proto::outcome_service_client::OutcomeServiceClient;
use crate::transport::proto::watch_response::Report;

/// The verdicts to show.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    #[command(flatten)]
    address: Address,
    /// Show only this verdict. Can be given several times.
    #[arg(long = "verdict", value_name = "VERDICT")]
    verdicts: Vec<VerdictName>,
    /// Show only events of this campaign.
    #[arg(long, default_value = "", hide_default_value = true)]
    campaign: String,
    /// Stop after this number of outcomes.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Print NDJSON.
    #[arg(long)]
    json: bool,
}

/// A verdict on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerdictName {
    Accepted,
    Duplicate,
    Conflict,
    Rejected,
    Undecided,
}

impl VerdictName {
    const fn to_proto(self) -> proto::Verdict {
        match self {
            Self::Accepted => proto::Verdict::Accepted,
            Self::Duplicate => proto::Verdict::Duplicate,
            Self::Conflict => proto::Verdict::Conflict,
            Self::Rejected => proto::Verdict::Rejected,
            Self::Undecided => proto::Verdict::Undecided,
        }
    }
}

const fn verdict_name(verdict: proto::Verdict) -> &'static str {
    match verdict {
        proto::Verdict::Unspecified => "",
        proto::Verdict::Accepted => "accepted",
        proto::Verdict::Duplicate => "duplicate",
        proto::Verdict::Conflict => "conflict",
        proto::Verdict::Rejected => "rejected",
        proto::Verdict::Undecided => "undecided",
    }
}

impl WatchArgs {
    /// Shows verdicts until Ctrl-C or the end of the service.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let channel = self.address.connect().await?;
        let request = proto::WatchRequest {
            verdicts: self.verdicts.iter().map(|verdict| verdict.to_proto().into()).collect(),
            campaign_id: self.campaign,
        };
        let answer = OutcomeServiceClient::new(channel).watch(request).await;
        let mut reports = answer.map_err(|status| explain(&status)).context("cannot watch")?.into_inner();
        let paint = Style::stdout();
        let mut left = self.limit.unwrap_or(u64::MAX);
        while left > 0 {
            let message = reports.message().await.map_err(|status| explain(&status)).context("cannot watch on")?;
            let Some(message) = message else { anyhow::bail!("the service ended the watch") };
            let Some(report) = message.report else { continue };
            let line = if self.json { to_json(&report).to_string() } else { render(&report, paint) };
            super::print(&(line + "\n"))?;
            if matches!(report, Report::Outcome(_)) {
                left -= 1;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn render(report: &Report, paint: Style) -> String {
    let outcome = match report {
        Report::Missed(missed) => return paint.yellow(&format!("… {} outcomes missed", grouped(*missed))),
        Report::Outcome(outcome) => outcome,
    };
    let at = outcome.at.as_ref().map(time_args::from_proto).unwrap_or_default();
    let verdict = format!("{:<9}", verdict_name(outcome.verdict()));
    let verdict = match outcome.verdict() {
        proto::Verdict::Accepted => paint.green(&verdict),
        proto::Verdict::Duplicate | proto::Verdict::Unspecified => paint.dim(&verdict),
        proto::Verdict::Conflict => paint.yellow(&verdict),
        proto::Verdict::Rejected | proto::Verdict::Undecided => paint.red(&verdict),
    };
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { printable(text).into_owned() };
    let mut line = format!(
        "{}  {verdict}  {:<10}  {:<20}  {}",
        paint.dim(&time_args::readable(at, Precision::ClockMilli)),
        or_dash(&outcome.r#type),
        or_dash(&outcome.campaign_id),
        or_dash(&outcome.event_id),
    );
    if outcome.verdict() == proto::Verdict::Rejected {
        let errors: Vec<String> = outcome.errors.iter().map(|e| format!("{} {}", e.field, e.message)).collect();
        line.push_str(&format!("  {} {}", paint.red(code_name(outcome.code())), printable(&errors.join("; "))));
    }
    line
}

fn to_json(report: &Report) -> Value {
    let outcome = match report {
        Report::Missed(missed) => return json!({ "missed": missed }),
        Report::Outcome(outcome) => outcome,
    };
    let mut value = json!({
        "at": outcome.at.as_ref().map(time_args::rfc3339),
        "event_id": outcome.event_id,
        "type": outcome.r#type,
        "campaign_id": outcome.campaign_id,
        "verdict": verdict_name(outcome.verdict()),
    });
    if outcome.verdict() == proto::Verdict::Rejected {
        value["code"] = code_name(outcome.code()).into();
        value["errors"] = outcome.errors.iter().map(|e| json!({ "field": e.field, "message": e.message })).collect();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_event_is_shown_with_its_reasons() {
        let error = proto::FieldError { field: "type".to_owned(), message: "is required".to_owned() };
        let report = Report::Outcome(proto::Outcome {
            at: Some(prost_types::Timestamp { seconds: 1, nanos: 5_000_000 }),
            event_id: "e\u{1b}1".to_owned(),
            verdict: proto::Verdict::Rejected.into(),
            code: proto::RejectionCode::Invalid.into(),
            errors: vec![error],
            ..Default::default()
        });
        let expected =
            "00:00:01.005  rejected   -           -                     e\u{fffd}1  INVALID type is required";
        assert_eq!(render(&report, Style::plain()), expected);
        assert_eq!(to_json(&report)["errors"], json!([{ "field": "type", "message": "is required" }]));
        assert_eq!(render(&Report::Missed(1_200), Style::plain()), "… 1,200 outcomes missed");
    }
}
