//! `tallyhouse top`: lists the users, campaigns or organizations with the most events.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::connection::{Address, Connection, explain};
use super::sparkline;
use super::style::Style;
use super::table::Table;
use super::time_args::{self, WindowArgs};
use crate::domain::Timestamp;
use crate::transport::proto;
use crate::transport::proto::query_service_client::QueryServiceClient;

const BAR_WIDTH: usize = 32;

/// The ranking to show.
#[derive(Clone, Debug, clap::Args)]
pub struct TopArgs {
    /// What to rank.
    #[arg(value_name = "WHAT")]
    what: RankingKind,
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// How many to show.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RankingKind {
    /// Users, by events of every type.
    Users,
    /// Campaigns, by events of every type.
    Campaigns,
}

impl TopArgs {
    /// Reads the ranking and shows it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let now = time_args::now();
        let window = self.window.window(now)?;
        let channel = self.address.connect().await?;
        let (text, value) = match self.what {
            RankingKind::Users => {
                let answer = users(channel, window, self.limit).await?;
                (render_users(&answer, Style::stdout(), now), users_json(&answer))
            }
            RankingKind::Campaigns => {
                let answer = campaigns(channel, window, self.limit).await?;
                (render_campaigns(&answer, Style::stdout(), now), campaigns_json(&answer))
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

/// Reads the most active users. Default window: the last 24 hours.
pub(super) async fn users(
    channel: Connection,
    window: Option<proto::Window>,
    limit: u32,
) -> anyhow::Result<proto::GetTopUsersResponse> {
    let request = proto::GetTopUsersRequest { window, limit };
    let answer = QueryServiceClient::new(channel).get_top_users(request).await;
    Ok(answer.map_err(|status| explain(&status)).context("cannot read the top users")?.into_inner())
}

/// Reads the most active campaigns. Default window: the last 24 hours.
pub(super) async fn campaigns(
    channel: Connection,
    window: Option<proto::Window>,
    limit: u32,
) -> anyhow::Result<proto::GetTopCampaignsResponse> {
    let request = proto::GetTopCampaignsRequest { window, limit };
    let answer = QueryServiceClient::new(channel).get_top_campaigns(request).await;
    Ok(answer.map_err(|status| explain(&status)).context("cannot read the top campaigns")?.into_inner())
}

/// The answer as lines of text.
pub(super) fn render_users(answer: &proto::GetTopUsersResponse, paint: Style, now: Timestamp) -> String {
    let max = answer.users.first().map_or(0, |user| user.events);
    let mut table = Table::new().number("#").text("user").number("events").bar();
    for (i, user) in answer.users.iter().enumerate() {
        table.row([
            (i + 1).to_string(),
            user.user_id.clone(),
            sparkline::grouped(user.events),
            sparkline::bar(user.events, max, BAR_WIDTH),
        ]);
    }
    frame("top users", &table, answer.window.as_ref(), answer.freshness.as_ref(), paint, now)
}

/// The answer as lines of text.
pub(super) fn render_campaigns(answer: &proto::GetTopCampaignsResponse, paint: Style, now: Timestamp) -> String {
    let max = answer.campaigns.first().map_or(0, |campaign| campaign.events);
    let mut table =
        Table::new().number("#").text("campaign").number("events").bar().number("impressions").number("clicks");
    table = table.number("CTR");
    for (i, campaign) in answer.campaigns.iter().enumerate() {
        table.row([
            (i + 1).to_string(),
            campaign.campaign_id.clone(),
            sparkline::grouped(campaign.events),
            sparkline::bar(campaign.events, max, BAR_WIDTH),
            sparkline::grouped(campaign.impressions),
            sparkline::grouped(campaign.clicks),
            sparkline::click_rate(campaign.clicks, campaign.impressions),
        ]);
    }
    frame("top campaigns", &table, answer.window.as_ref(), answer.freshness.as_ref(), paint, now)
}

fn frame(
    title: &str,
    table: &Table,
    window: Option<&proto::Window>,
    freshness: Option<&proto::Freshness>,
    paint: Style,
    now: Timestamp,
) -> String {
    let body = if table.is_empty() { "no events in this window\n".to_owned() } else { table.render(paint) };
    format!(
        "{}  {}\n{body}{}\n",
        paint.bold(title),
        time_args::readable_window(window),
        paint.dim(&time_args::readable_freshness(freshness, now)),
    )
}

fn users_json(answer: &proto::GetTopUsersResponse) -> Value {
    let mut value = time_args::window_json(answer.window.as_ref(), answer.freshness.as_ref());
    let users = answer.users.iter().map(|user| json!({ "user_id": user.user_id, "events": user.events }));
    value["users"] = users.collect();
    value
}

fn campaigns_json(answer: &proto::GetTopCampaignsResponse) -> Value {
    let mut value = time_args::window_json(answer.window.as_ref(), answer.freshness.as_ref());
    let campaigns = answer.campaigns.iter().map(|campaign| {
        json!({
            "campaign_id": campaign.campaign_id,
            "events": campaign.events,
            "impressions": campaign.impressions,
            "clicks": campaign.clicks,
        })
    });
    value["campaigns"] = campaigns.collect();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_ranked_with_bars() {
        let user = |user_id: &str, events| proto::UserCount { user_id: user_id.to_owned(), events };
        let users = vec![user("anna", 2_000), user("bo", 500)];
        let answer = proto::GetTopUsersResponse { users, window: None, freshness: None };
        let text = render_users(&answer, Style::plain(), Timestamp::from_millis(0));
        let bars = ["█".repeat(32), "█".repeat(8)];
        let expected = format!(
            "top users  \n#  user  events\n1  anna   2,000  {}\n2  bo       500  {}\nfreshness unknown\n",
            bars[0], bars[1]
        );
        assert_eq!(text, expected);
        assert_eq!(users_json(&answer)["users"][1], json!({ "user_id": "bo", "events": 500 }));
    }

    #[test]
    fn nothing_is_said_to_be_nothing() {
        let text = render_campaigns(&proto::GetTopCampaignsResponse::default(), Style::plain(), time_args::now());
        assert!(text.contains("no events in this window"), "{text}");
    }
}
