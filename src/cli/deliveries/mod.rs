//! `tallyhouse deliveries`: how events are handed on.

mod request;

use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::connection::Address;
use super::style::Style;
use super::table::Table;
use request::send;

/// Time between two looks of `watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);

/// What to do.
#[derive(Clone, Debug, clap::Args)]
pub struct DeliveriesArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Action {
    /// Show how the event pipeline is getting on.
    Status(StatusArgs),
    /// Show it again every second, until Ctrl-C.
    Watch(StatusArgs),
    /// Show where an event of the pipeline is.
    Event(EventArgs),
    /// Write into Redis what it has lost of the pipeline's records.
    Rebuild(StatusArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    address: Address,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct EventArgs {
    #[command(flatten)]
    address: Address,
    /// The event's id.
    id: String,
}

impl DeliveriesArgs {
    /// Asks, and shows the answer.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Status(args) => args.show("/pipeline/status", Method::GET).await?,
            Action::Rebuild(args) => args.show("/pipeline/rebuild", Method::POST).await?,
            Action::Watch(args) => loop {
                args.show("/pipeline/status", Method::GET).await?;
                tokio::time::sleep(WATCH_PAUSE).await;
            },
            Action::Event(args) => {
                let answer = send(&args.address, Method::GET, &["pipeline", "events", &args.id], None).await?;
                super::print_json(&answer)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl StatusArgs {
    async fn show(&self, path: &str, method: Method) -> anyhow::Result<()> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let answer = send(&self.address, method, &segments, None).await?;
        if self.json {
            super::print_json(&answer)?;
        } else {
            super::print(&in_lines(&answer, Style::stdout()))?;
        }
        Ok(())
    }
}

/// The fields of an answer, one a line.
fn in_lines(answer: &Value, style: Style) -> String {
    let mut table = Table::new().text("what").number("value");
    for (name, value) in answer.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        table.row([name.clone(), value]);
    }
    table.render(style)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_shown_line_by_line() {
        let text = in_lines(&json!({ "redis": "up", "waiting": 7 }), Style::plain());
        assert!(text.contains("redis") && text.contains("up") && text.contains('7'), "{text}");
    }
}
