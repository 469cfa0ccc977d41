//! `tallyhouse segments`: lists the segments that are not in ClickHouse yet, and retries parked ones.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::connection::{Address, explain};
use super::sparkline::grouped;
use super::style::Style;
use super::table::Table;
use super::time_args::{self, Precision};
use crate::transport::proto;
use crate::transport::proto::segment_service_client::SegmentServiceClient;

/// Lists or retries segments.
#[derive(Clone, Debug, clap::Args)]
pub struct SegmentsArgs {
    /// The action.
    #[arg(value_name = "ACTION", default_value = "list")]
    action: Action,
    #[command(flatten)]
    address: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    /// Show the segments, oldest first.
    List,
    /// Put every parked segment back in line, once what ClickHouse refused them for has been fixed.
    Retry,
}

impl SegmentsArgs {
    /// Runs the action and shows the result.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = SegmentServiceClient::new(self.address.connect().await?);
        let (text, value) = match self.action {
            Action::List => {
                let answer = client.list_segments(proto::ListSegmentsRequest {}).await;
                let answer = answer.map_err(|status| explain(&status)).context("cannot list segments")?;
                let segments = answer.into_inner().segments;
                (render(&segments, Style::stdout()), json!({ "segments": to_json(&segments) }))
            }
            Action::Retry => {
                let answer = client.retry_parked_segments(proto::RetryParkedSegmentsRequest {}).await;
                let answer = answer.map_err(|status| explain(&status)).context("cannot retry segments")?;
                let count = answer.into_inner().segments;
                (format!("parked segments retried: {count}\n"), json!({ "segments": count }))
            }
        };
        if self.json {
            super::print_json(&value)?
        } else {
            super::print(&text)?
        }
        Ok(ExitCode::SUCCESS)
    }
}

const fn state_name(state: proto::SegmentState) -> &'static str {
    match state {
        proto::SegmentState::Unspecified => "",
        proto::SegmentState::Open => "open",
        proto::SegmentState::Sealed => "sealed",
        proto::SegmentState::Parked => "parked",
    }
}

fn render(segments: &[proto::Segment], paint: Style) -> String {
    if segments.is_empty() {
        return "all events are in ClickHouse\n".to_owned();
    }
    let mut table = Table::new().text("segment").text("state").number("events").number("bytes").text("opened at (UTC)");
    table = table.text("last error");
    for segment in segments {
        let opened = segment.opened_at.as_ref().map(time_args::from_proto);
        table.row([
            segment.segment_id.clone(),
            state_name(segment.state()).to_owned(),
            grouped(segment.rows),
            grouped(segment.bytes),
            opened.map(|opened| time_args::readable(opened, Precision::Milli)).unwrap_or_default(),
            segment.last_error.clone(),
        ]);
    }
    let parked = segments.iter().filter(|segment| segment.state() == proto::SegmentState::Parked).count();
    let mut text = table.render(paint);
    if parked > 0 {
        let hint = format!("{parked} parked: mend what ClickHouse refused them for, then `tallyhouse segments retry`");
        text.push_str(&(paint.red(&hint) + "\n"));
    }
    text
}

fn to_json(segments: &[proto::Segment]) -> Value {
    let segments = segments.iter().map(|segment| {
        json!({
            "segment_id": segment.segment_id,
            "state": state_name(segment.state()),
            "rows": segment.rows,
            "bytes": segment.bytes,
            "opened_at": segment.opened_at.as_ref().map(time_args::rfc3339),
            "last_error": segment.last_error,
        })
    });
    segments.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_segments_say_what_to_do() {
        let segment = proto::Segment {
            segment_id: "s1".to_owned(),
            state: proto::SegmentState::Parked.into(),
            rows: 1_000,
            last_error: "no such column".to_owned(),
            ..Default::default()
        };
        let text = render(&[segment], Style::plain());
        assert!(text.contains("s1       parked   1,000"), "{text}");
        assert!(text.contains("no such column") && text.contains("segments retry"), "{text}");
        assert_eq!(render(&[], Style::plain()), "all events are in ClickHouse\n");
    }
}
