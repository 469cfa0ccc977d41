//! `tallyhouse users daily` and `tallyhouse dau`: count distinct users by day.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::connection::{Address, Connection, explain};
use super::sparkline;
use super::style::Style;
use super::table::Table;
use super::time_args::{self, WindowArgs};
use crate::domain::Timestamp;
use crate::transport::proto;
use crate::transport::proto::query_service_client::QueryServiceClient;

const BAR_WIDTH: usize = 32;
/// The default window.
pub(super) const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);

/// What to count.
#[derive(Clone, Debug, clap::Args)]
pub struct UsersArgs {
    #[command(subcommand)]
    question: UsersCommand,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum UsersCommand {
    /// Count the distinct users of each day in UTC, exactly.
    ///
    /// Default window: the last 7 days. A window is extended to whole days.
    Daily(DailyArgs),
}

/// The days to count.
#[derive(Clone, Debug, clap::Args)]
pub struct DailyArgs {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl UsersArgs {
    /// Reads the counts and shows them.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.question {
            UsersCommand::Daily(args) => args.run().await,
        }
    }
}

impl DailyArgs {
    /// Reads the counts and shows them.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let now = time_args::now();
        let window = self.window.window_or_last(WEEK, now)?;
        let answer = ask(self.address.connect().await?, window).await?;
        if self.json {
            let mut value = time_args::window_json(answer.window.as_ref(), answer.freshness.as_ref());
            value["days"] = answer.days.iter().map(|day| json!({ "date": day.date, "users": day.users })).collect();
            super::print_json(&value)?;
        } else {
            super::print(&render(&answer, Style::stdout(), now))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads the daily active users.
pub(super) async fn ask(
    channel: Connection,
    window: proto::Window,
) -> anyhow::Result<proto::GetDailyActiveUsersResponse> {
    let request = proto::GetDailyActiveUsersRequest { window: Some(window) };
    let answer = QueryServiceClient::new(channel).get_daily_active_users(request).await;
    Ok(answer.map_err(|status| explain(&status)).context("cannot read the daily active users")?.into_inner())
}

/// The answer as lines of text.
pub(super) fn render(answer: &proto::GetDailyActiveUsersResponse, paint: Style, now: Timestamp) -> String {
    let max = answer.days.iter().map(|day| day.users).max().unwrap_or(0);
    let mut table = Table::new().text("day (UTC)").number("users").bar();
    for day in &answer.days {
        table.row([day.date.clone(), sparkline::grouped(day.users), sparkline::bar(day.users, max, BAR_WIDTH)]);
    }
    let freshness = time_args::readable_freshness(answer.freshness.as_ref(), now);
    format!("{}\n{}{}\n", paint.bold("daily active users"), table.render(paint), paint.dim(&freshness))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_without_users_are_shown_too() {
        let day = |date: &str, users| proto::DayCount { date: date.to_owned(), users };
        let days = vec![day("2026-02-09", 0), day("2026-02-10", 1_300)];
        let answer = proto::GetDailyActiveUsersResponse { days, ..Default::default() };
        let text = render(&answer, Style::plain(), Timestamp::from_millis(0));
        assert!(text.contains("2026-02-09      0\n2026-02-10  1,300  ██"), "{text}");
    }
}
