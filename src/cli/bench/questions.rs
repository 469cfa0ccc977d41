//! How fast questions are answered, cached and not, against the same question
//! grouped from the raw events; and how soon an event counts.

use std::time::{Duration, Instant, SystemTime};

use rand::RngExt as _;
use tonic::transport::Channel;

use super::events::Generator;
use super::house::House;
use super::load::Load;
use super::report::{Report, Times};
use crate::transport::proto::ingest_service_client::IngestServiceClient;
use crate::transport::proto::query_service_client::QueryServiceClient;
use crate::transport::proto::{GetCampaignStatsRequest, GetTopUsersRequest, Granularity, IngestBatchRequest, Window};

const HOUR_SECONDS: i64 = 3_600;
const DAY_SECONDS: i64 = 24 * HOUR_SECONDS;
/// Pause between two looks whether an event counts.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for an event to count.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// Of each round: questions for top users at least (a p99 needs a hundred
/// answers in all), and questions for the raw events, which take far longer.
const PER_ROUND_MIN: u64 = 40;
const RAW_PER_ROUND: usize = 3;
/// Questions for statistics, for each one for top users.
const STATS_PER_TOP: usize = 3;
/// How often each question is asked again.
const AGAIN: usize = 10;

/// Asks each question for about `share`, in turns with the raw events.
pub(super) async fn measure(house: &House, rounds: u32, share: Duration, report: &mut Report) -> anyhow::Result<()> {
    let mut asker = Asker { client: QueryServiceClient::new(house.channel().await?), house };
    let mut times: [Times; 6] = std::array::from_fn(|_| Times::new());
    for round in 1..=rounds {
        // Nobody pays for the merges that others have left behind.
        house.merged().await?;
        let begun = Instant::now();
        while begun.elapsed() < share * 4 / rounds || times[3].len() < PER_ROUND_MIN * u64::from(round) {
            for _ in 0..STATS_PER_TOP {
                let number = scattered(times[0].len());
                let (campaign, shift) = (number % 1_000, number / 1_000);
                times[0].add(asker.stats(campaign, shift).await?);
                for _ in 0..AGAIN {
                    times[1].add(asker.stats(campaign, shift).await?);
                }
            }
            let shift = scattered(times[3].len());
            times[3].add(asker.top(shift).await?);
            for _ in 0..AGAIN {
                times[4].add(asker.top(shift).await?);
            }
        }
        for _ in 0..RAW_PER_ROUND {
            let (campaign, shift) = (rand::rng().random_range(0..1_000), rand::rng().random_range(0..10_000));
            times[2].add(asker.raw_stats(campaign, shift).await?);
            times[5].add(asker.raw_top(shift).await?);
        }
    }
    for (name, times) in
        ["stats.cold", "stats.cached", "stats.raw", "top.cold", "top.cached", "top.raw"].into_iter().zip(&times)
    {
        report.add_times(name, times);
    }
    Ok(())
}

/// The numbers below ten thousand, each once, scattered: what nobody has asked
/// about yet.
const fn scattered(nth: u64) -> i64 {
    (nth * 617 % 10_000).cast_signed()
}

struct Asker<'a> {
    client: QueryServiceClient<Channel>,
    house: &'a House,
}

/// The window of so many seconds that ends so many minutes from now; later
/// ends than now make windows that nobody has asked about.
fn window(seconds: i64, shift_minutes: i64) -> (i64, i64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Each shift is a window of its own; all of them hold the newest events.
    let to = (i64::try_from(now).unwrap_or_default() / 60 + 1 + shift_minutes % 10) * 60;
    (to - seconds - (shift_minutes / 10) * 60, to)
}

const fn proto_window((from, to): (i64, i64)) -> Option<Window> {
    Some(Window {
        from: Some(prost_types::Timestamp { seconds: from, nanos: 0 }),
        to: Some(prost_types::Timestamp { seconds: to, nanos: 0 }),
    })
}

impl Asker<'_> {
    /// One campaign's minutes of an hour.
    async fn stats(&mut self, campaign: i64, shift: i64) -> anyhow::Result<Duration> {
        let request = GetCampaignStatsRequest {
            campaign_id: format!("campaign_{campaign}"),
            window: proto_window(window(HOUR_SECONDS, shift % 10)),
            granularity: Granularity::Minute.into(),
        };
        let begun = Instant::now();
        self.client.get_campaign_stats(request).await?;
        Ok(begun.elapsed())
    }

    async fn raw_stats(&self, campaign: i64, shift: i64) -> anyhow::Result<Duration> {
        let (from, to) = window(HOUR_SECONDS, shift % 10);
        self.raw(&format!(
            "SELECT toStartOfMinute(occurred_at) AS minute, type, uniqExact(event_id) FROM events \
             WHERE org_id = 'default' AND campaign_id = 'campaign_{campaign}' \
               AND occurred_at >= toDateTime({from}, 'UTC') AND occurred_at < toDateTime({to}, 'UTC') \
             GROUP BY minute, type ORDER BY minute FORMAT Null"
        ))
        .await
    }

    /// The ten most active users of 24 hours.
    async fn top(&mut self, shift: i64) -> anyhow::Result<Duration> {
        let request = GetTopUsersRequest { window: proto_window(window(DAY_SECONDS, shift)), limit: 10 };
        let begun = Instant::now();
        self.client.get_top_users(request).await?;
        Ok(begun.elapsed())
    }

    async fn raw_top(&self, shift: i64) -> anyhow::Result<Duration> {
        let (from, to) = window(DAY_SECONDS, shift);
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
        self.house.clickhouse().query_raw(statement).execute().await?;
        Ok(begun.elapsed())
    }
}

/// While 10,000 events a second stream in, sends single ones and looks how
/// long after its acknowledgement each is counted.
pub(super) async fn measure_freshness(house: &House, share: Duration, report: &mut Report) -> anyhow::Result<()> {
    let load = Load::begin(house, 9_000_000).await?;
    let mut ingest = IngestServiceClient::new(house.channel().await?);
    let mut query = QueryServiceClient::new(house.channel().await?);
    let mut events = Generator::new(u64::MAX);
    let mut times = Times::new();
    let begun = Instant::now();
    while begun.elapsed() < share {
        let mut event = events.event(SystemTime::now(), Duration::ZERO);
        "impression".clone_into(&mut event.r#type);
        event.campaign_id = format!("freshness_{}", times.len());
        let request = GetCampaignStatsRequest {
            campaign_id: event.campaign_id.clone(),
            window: proto_window(window(HOUR_SECONDS, 0)),
            granularity: Granularity::Hour.into(),
        };
        ingest.ingest_batch(IngestBatchRequest { events: vec![event], durability: 0, ..Default::default() }).await?;
        let acknowledged = Instant::now();
        while query.get_campaign_stats(request.clone()).await?.into_inner().series.is_empty() {
            anyhow::ensure!(acknowledged.elapsed() < LOOK_MAX, "an acknowledged event does not count");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        times.add(acknowledged.elapsed());
    }
    let acks = load.end().await?;
    report.add_times("freshness", &times);
    report.add_times("load.ack", &acks);
    Ok(())
}
