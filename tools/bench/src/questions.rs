//! How fast questions are answered, cached and not, against the same question
//! grouped from the raw events; and how soon an event counts.

use std::time::{Duration, Instant};

use tonic::transport::Channel;

use crate::freshness::{FreshnessProbe, minute_end, proto_window};
use crate::load::Load;
use crate::report::{Report, Times};
use crate::service::BenchService;
use tallyhouse::transport::proto::query_service_client::QueryServiceClient;
use tallyhouse::transport::proto::{GetCampaignStatsRequest, GetTopUsersRequest, Granularity};

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = 60 * MINUTE_SECONDS;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
/// Of each round: questions for top users at least (so that the p99 of three
/// rounds is not one or two answers), and questions for the raw events, which
/// take far longer.
const PER_ROUND_MIN: u64 = 100;
const RAW_PER_ROUND: usize = 3;
/// Questions for statistics, for each one for top users.
const STATS_PER_TOP: usize = 3;
/// Campaigns that are asked about.
const CAMPAIGNS: u64 = 1_000;
/// Windows for top users, and their ends, a minute apart.
const WINDOWS: u64 = 1_800;
const WINDOW_ENDS: i64 = 30;
/// How often each question is asked again.
const AGAIN: usize = 10;
/// Questions for top users right after events streamed in.
const UNMERGED_QUESTIONS: u64 = 100;

/// Asks each question for about `share`, in turns with the raw events.
pub(crate) async fn measure(
    service: &BenchService,
    rounds: u32,
    share: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut asker = Asker::new(service).await?;
    let mut times: [Times; 6] = std::array::from_fn(|_| Times::new());
    for round in 1..=rounds {
        // None pays for the merges that others have left behind.
        service.merged().await?;
        let begun = Instant::now();
        while begun.elapsed() < share * 4 / rounds || times[3].len() < PER_ROUND_MIN * u64::from(round) {
            for _ in 0..STATS_PER_TOP {
                let number = times[0].len();
                times[0].add(asker.stats(number).await?);
                for _ in 0..AGAIN {
                    times[1].add(asker.stats(number).await?);
                }
            }
            let number = times[3].len();
            times[3].add(asker.top(number).await?);
            for _ in 0..AGAIN {
                times[4].add(asker.top(number).await?);
            }
        }
        for _ in 0..RAW_PER_ROUND {
            let number = times[2].len();
            times[2].add(asker.raw_stats(number).await?);
            times[5].add(asker.raw_top(number).await?);
        }
    }
    for (name, times) in
        ["stats.cold", "stats.cached", "stats.raw", "top.cold", "top.cached", "top.raw"].into_iter().zip(&times)
    {
        report.add_times(name, times);
    }
    let [stats_cold, stats_cached, stats_raw, top_cold, top_cached, top_raw] = times.map(|times| times.millis(0.5));
    report.add("stats.cold_ratio", stats_cold / stats_raw, "× raw (p50)");
    report.add("stats.cached_ratio", stats_cached / stats_cold, "× cold (p50)");
    report.add("top.cold_ratio", top_cold / top_raw, "× raw (p50)");
    report.add("top.cached_ratio", top_cached / top_cold, "× cold (p50)");
    Ok(())
}

/// Asks for top users as the days lie now: in parts that nobody has merged yet.
pub(crate) async fn measure_unmerged(service: &BenchService, report: &mut Report) -> anyhow::Result<()> {
    let mut asker = Asker::new(service).await?;
    let mut times = Times::new();
    for number in 0..UNMERGED_QUESTIONS {
        times.add(asker.top(number).await?);
    }
    report.add_times("top.unmerged", &times);
    Ok(())
}

/// Asks questions by their numbers: different numbers, different questions, so
/// that nobody has asked them before.
struct Asker<'a> {
    client: QueryServiceClient<Channel>,
    service: &'a BenchService,
    /// The end of the minute in which it began.
    end: i64,
}

impl<'a> Asker<'a> {
    async fn new(service: &'a BenchService) -> anyhow::Result<Self> {
        Ok(Self { client: QueryServiceClient::new(service.channel().await?), service, end: minute_end() })
    }

    /// The campaign of a question, and its hour, to the newest events.
    const fn campaign_hour(&self, number: u64) -> (u64, (i64, i64)) {
        let to = self.end + (number / CAMPAIGNS).cast_signed() * MINUTE_SECONDS;
        // Low numbers have more events, so each round gets some of all.
        (number * 617 % CAMPAIGNS, (to - HOUR_SECONDS, to))
    }

    /// The window of a question: 23 to 24 hours, to the newest events, so that
    /// it touches two days, as 24 hours do.
    const fn day(&self, number: u64) -> (i64, i64) {
        let number = (number % WINDOWS).cast_signed();
        let (later, shorter) = (number % WINDOW_ENDS, number / WINDOW_ENDS);
        let to = self.end + later * MINUTE_SECONDS;
        (to - DAY_SECONDS + shorter * MINUTE_SECONDS, to)
    }

    /// One campaign's minutes of an hour.
    async fn stats(&mut self, number: u64) -> anyhow::Result<Duration> {
        let (campaign, hour) = self.campaign_hour(number);
        let request = GetCampaignStatsRequest {
            campaign_id: format!("campaign_{campaign}"),
            window: proto_window(hour),
            granularity: Granularity::Minute.into(),
        };
        let begun = Instant::now();
        self.client.get_campaign_stats(request).await?;
        Ok(begun.elapsed())
    }

    async fn raw_stats(&self, number: u64) -> anyhow::Result<Duration> {
        let (campaign, (from, to)) = self.campaign_hour(number);
        self.raw(&format!(
            "SELECT toStartOfMinute(occurred_at) AS minute, type, uniqExact(event_id) FROM events \
             WHERE org_id = 'default' AND campaign_id = 'campaign_{campaign}' \
               AND occurred_at >= toDateTime({from}, 'UTC') AND occurred_at < toDateTime({to}, 'UTC') \
             GROUP BY minute, type ORDER BY minute FORMAT Null"
        ))
        .await
    }

    /// The ten most active users of 24 hours.
    async fn top(&mut self, number: u64) -> anyhow::Result<Duration> {
        let request = GetTopUsersRequest { window: proto_window(self.day(number)), limit: 10 };
        let begun = Instant::now();
        self.client.get_top_users(request).await?;
        Ok(begun.elapsed())
    }

    async fn raw_top(&self, number: u64) -> anyhow::Result<Duration> {
        let (from, to) = self.day(number);
        self.raw(&format!(
            "SELECT user_id, count() AS events FROM events \
             WHERE org_id = 'default' AND user_id != '' \
               AND occurred_at >= toDateTime({from}, 'UTC') AND occurred_at < toDateTime({to}, 'UTC') \
             GROUP BY user_id ORDER BY events DESC, user_id LIMIT 10 FORMAT Null"
        ))
        .await
    }

    async fn raw(&self, statement: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.service.clickhouse().query_raw(statement).execute().await?;
        Ok(begun.elapsed())
    }
}

/// While 10,000 events a second stream in, sends single ones and looks how
/// long after its acknowledgement each is counted.
pub(crate) async fn measure_freshness(
    service: &BenchService,
    share: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let load = Load::begin(service, 9_000_000).await?;
    let mut probe = FreshnessProbe::new(service, "freshness").await?;
    let mut times = Times::new();
    let begun = Instant::now();
    while begun.elapsed() < share {
        times.add(probe.time().await?);
    }
    let acks = load.end().await?;
    report.add_times("freshness", &times);
    report.add_times("load.ack", &acks);
    Ok(())
}
