//! `tallyhouse stats`: shows one campaign over time.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use serde_json::json;

use super::connection::{Address, Connection, explain};
use super::sparkline;
use super::style::{Style, printable};
use super::table::Table;
use super::time_args::{self, Precision, WindowArgs};
use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, MILLIS_PER_MINUTE, Timestamp};
use crate::transport::proto;
use crate::transport::proto::query_service_client::QueryServiceClient;

const BAR_WIDTH: usize = 20;
/// Columns of the sparkline of the whole window.
const LINE_WIDTH: usize = 72;
/// Largest accepted answer, in bytes: that of the most buckets.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The statistics to show.
#[derive(Clone, Debug, clap::Args)]
pub struct StatsArgs {
    /// The campaign.
    #[arg(value_name = "CAMPAIGN")]
    campaign: String,
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// The length of a bucket. Default: minutes up to three hours, hours up to a week, then days.
    #[arg(long)]
    granularity: Option<Granularity>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Granularity {
    /// One minute.
    Minute,
    /// One hour in UTC.
    Hour,
    /// One day in UTC.
    Day,
}

impl Granularity {
    fn for_length(millis: i64) -> Self {
        // With a little to spare: windows are taken outwards to whole minutes.
        if millis <= 3 * MILLIS_PER_HOUR + MILLIS_PER_MINUTE {
            Self::Minute
        } else if millis <= 7 * MILLIS_PER_DAY + MILLIS_PER_MINUTE {
            Self::Hour
        } else {
            Self::Day
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    const fn millis(self) -> i64 {
        match self {
            Self::Minute => MILLIS_PER_MINUTE,
            Self::Hour => MILLIS_PER_HOUR,
            Self::Day => MILLIS_PER_DAY,
        }
    }

    const fn to_proto(self) -> proto::Granularity {
        match self {
            Self::Minute => proto::Granularity::Minute,
            Self::Hour => proto::Granularity::Hour,
            Self::Day => proto::Granularity::Day,
        }
    }
}

impl StatsArgs {
    /// Reads the statistics and shows them.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let window = self.window.window_or_last(Duration::from_secs(3_600), time_args::now())?;
        let granularity = self.granularity.unwrap_or_else(|| {
            let (from, to) = ends(Some(&window));
            Granularity::for_length(to.millis() - from.millis())
        });
        let channel = self.address.connect().await?;
        let stats = ask(channel, &self.campaign, window, granularity).await?;
        if self.json {
            super::print_json(&to_json(&stats, granularity))?;
        } else {
            super::print(&render(&stats, granularity, Style::stdout(), time_args::now()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Reads a campaign's counts.
pub(super) async fn ask(
    channel: Connection,
    campaign: &str,
    window: proto::Window,
    granularity: Granularity,
) -> anyhow::Result<proto::GetCampaignStatsResponse> {
    let request = proto::GetCampaignStatsRequest {
        campaign_id: campaign.to_owned(),
        window: Some(window),
        granularity: granularity.to_proto().into(),
    };
    let mut client = QueryServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = client.get_campaign_stats(request).await;
    Ok(answer.map_err(|status| explain(&status)).context("cannot read the statistics")?.into_inner())
}

fn ends(window: Option<&proto::Window>) -> (Timestamp, Timestamp) {
    let end = |moment: Option<&prost_types::Timestamp>| moment.map(time_args::from_proto).unwrap_or_default();
    window.map(|window| (end(window.from.as_ref()), end(window.to.as_ref()))).unwrap_or_default()
}

/// The answer as lines of text.
pub(super) fn render(
    stats: &proto::GetCampaignStatsResponse,
    granularity: Granularity,
    paint: Style,
    now: Timestamp,
) -> String {
    let window = time_args::readable_window(stats.window.as_ref());
    let name = printable(&stats.campaign_id);
    let mut text = format!("{}  {window}, by {}\n", paint.bold(&name), granularity.name());
    let impressions: u64 = stats.series.iter().map(|bucket| bucket.impressions).sum();
    let clicks: u64 = stats.series.iter().map(|bucket| bucket.clicks).sum();
    if stats.series.is_empty() {
        text.push_str("no impressions or clicks in this window\n");
    } else {
        text.push_str(&lines(stats, granularity, paint));
        text.push('\n');
        text.push_str(&buckets(stats, granularity).render(paint));
        text.push_str(&format!(
            "\ntotal: {} impressions, {} clicks, {}\n",
            paint.bold(&sparkline::grouped(impressions)),
            paint.bold(&sparkline::grouped(clicks)),
            if impressions > 0 { sparkline::click_rate(clicks, impressions) } else { "no rate".to_owned() },
        ));
    }
    let freshness = time_args::readable_freshness(stats.freshness.as_ref(), now);
    text + &paint.dim(&freshness) + "\n"
}

/// Sparklines of the whole window.
fn lines(stats: &proto::GetCampaignStatsResponse, granularity: Granularity, paint: Style) -> String {
    let (from, to) = ends(stats.window.as_ref());
    let length = granularity.millis();
    let (first, end) = (from.floor_to(length), to.ceil_to(length));
    let Ok(buckets) = usize::try_from((end.millis() - first.millis()) / length) else { return String::new() };
    let (mut impressions, mut clicks) = (vec![0; buckets], vec![0; buckets]);
    for bucket in &stats.series {
        let start = bucket.start.as_ref().map(time_args::from_proto).unwrap_or_default();
        let place = usize::try_from((start.millis() - first.millis()) / length).unwrap_or(usize::MAX);
        if place < buckets {
            impressions[place] += bucket.impressions;
            clicks[place] += bucket.clicks;
        }
    }
    let line = |values: &[u64]| paint.cyan(&sparkline::sparkline(&sparkline::gather(values, LINE_WIDTH)));
    format!("impressions {}\nclicks      {}\n", line(&impressions), line(&clicks))
}

fn buckets(stats: &proto::GetCampaignStatsResponse, granularity: Granularity) -> Table {
    let precision = if granularity == Granularity::Day { Precision::Day } else { Precision::Minute };
    let heading = if granularity == Granularity::Day { "day" } else { "UTC" };
    let impressions_max = stats.series.iter().map(|bucket| bucket.impressions).max().unwrap_or(0);
    let clicks_max = stats.series.iter().map(|bucket| bucket.clicks).max().unwrap_or(0);
    let mut table = Table::new().text(heading).number("impressions").bar().number("clicks").bar().number("CTR");
    for bucket in &stats.series {
        let start = bucket.start.as_ref().map(time_args::from_proto).unwrap_or_default();
        table.row([
            time_args::readable(start, precision),
            sparkline::grouped(bucket.impressions),
            sparkline::bar(bucket.impressions, impressions_max, BAR_WIDTH),
            sparkline::grouped(bucket.clicks),
            sparkline::bar(bucket.clicks, clicks_max, BAR_WIDTH / 2),
            sparkline::click_rate(bucket.clicks, bucket.impressions),
        ]);
    }
    table
}

/// The answer of the REST contract, with its freshness.
fn to_json(stats: &proto::GetCampaignStatsResponse, granularity: Granularity) -> serde_json::Value {
    let series: Vec<serde_json::Value> = stats
        .series
        .iter()
        .map(|bucket| {
            json!({
                "ts": bucket.start.as_ref().map(time_args::rfc3339),
                "impressions": bucket.impressions,
                "clicks": bucket.clicks,
            })
        })
        .collect();
    let mut value = time_args::window_json(stats.window.as_ref(), stats.freshness.as_ref());
    value["campaign_id"] = stats.campaign_id.clone().into();
    value["granularity"] = granularity.name().into();
    value["series"] = series.into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> proto::GetCampaignStatsResponse {
        let at = |millis| Some(time_args::to_proto(Timestamp::from_millis(millis)));
        let bucket = |minute: i64, impressions, clicks| proto::CampaignBucket {
            start: at(minute * MILLIS_PER_MINUTE),
            impressions,
            clicks,
        };
        proto::GetCampaignStatsResponse {
            campaign_id: "camp\u{7}".to_owned(),
            window: Some(proto::Window { from: at(0), to: at(4 * MILLIS_PER_MINUTE) }),
            granularity: proto::Granularity::Minute.into(),
            series: vec![bucket(0, 1_000, 20), bucket(1, 500, 0), bucket(3, 0, 5)],
            freshness: Some(proto::Freshness { watermark: at(1_000), cached: true }),
        }
    }

    #[test]
    fn a_campaign_is_shown_as_a_table_with_bars() {
        let text = render(&answer(), Granularity::Minute, Style::plain(), Timestamp::from_millis(2_500));
        let expected = "\
camp\u{fffd}  1970-01-01 00:00 to 1970-01-01 00:04 UTC, by minute
impressions █▄  
clicks      █  ▂

UTC               impressions                        clicks                 CTR
1970-01-01 00:00        1,000  ████████████████████      20  ██████████  2.00 %
1970-01-01 00:01          500  ██████████                 0              0.00 %
1970-01-01 00:03            0                             5  ██▌

total: 1,500 impressions, 25 clicks, 1.67 %
counts everything acknowledged up to 1970-01-01 00:00:01.000 UTC (1s 500ms ago), from the cache
";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_is_that_of_the_rest_contract() {
        let value = to_json(&answer(), Granularity::Minute);
        assert_eq!(value["series"][1], json!({"ts": "1970-01-01T00:01:00Z", "impressions": 500, "clicks": 0}));
        assert_eq!((&value["from"], &value["granularity"]), (&json!("1970-01-01T00:00:00Z"), &json!("minute")));
    }

    #[test]
    fn longer_windows_get_longer_buckets() {
        assert_eq!(Granularity::for_length(3 * MILLIS_PER_HOUR + 1), Granularity::Minute);
        assert_eq!(Granularity::for_length(MILLIS_PER_DAY + 1), Granularity::Hour);
        assert_eq!(Granularity::for_length(7 * MILLIS_PER_DAY + 1), Granularity::Hour);
        assert_eq!(Granularity::for_length(30 * MILLIS_PER_DAY), Granularity::Day);
    }
}
