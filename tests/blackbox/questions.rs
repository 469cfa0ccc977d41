//! Answers come from rollups and are exact, whatever the window.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse::transport::proto::{self, Granularity};

use crate::events::{click, now_millis, window};
use crate::service::TestService;

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// What the answers must be, worked out from the events themselves.
struct Oracle {
    events: Vec<proto::Event>,
}

impl Oracle {
    /// Events of few users and campaigns over three days, so that buckets,
    /// ranks and ties are all busy.
    fn new(random: &mut StdRng, now: i64) -> Self {
        let event = |n: i32, random: &mut StdRng| {
            let mut event = click(&format!("event-{n}"), now - random.random_range(0..3 * DAY));
            event.campaign_id = format!("camp_{}", random.random_range(0..5));
            // Some users are far more active than others; some events have none.
            let user = random.random_range(0.0_f64..1.0).powi(3) * 60.0;
            event.user_id = if random.random_range(0..20) == 0 { String::new() } else { format!("user_{user:.0}") };
            event.r#type = ["click", "impression", "view"][random.random_range(0..3)].to_owned();
            event
        };
        Self { events: (0..20_000).map(|n| event(n, random)).collect() }
    }

    fn within(&self, from: i64, to: i64) -> impl Iterator<Item = &proto::Event> {
        self.events.iter().filter(move |event| (from..to).contains(&millis(event)))
    }

    /// The most frequent names, ties by name.
    fn top(&self, from: i64, to: i64, limit: usize, name: fn(&proto::Event) -> &str) -> Vec<(String, u64)> {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for event in self.within(from, to).filter(|event| !name(event).is_empty()) {
            *counts.entry(name(event)).or_default() += 1;
        }
        let mut ranking: Vec<_> = counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        ranking.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ranking.truncate(limit);
        ranking
    }

    /// Impressions and clicks by bucket.
    fn series(&self, campaign: &str, from: i64, to: i64, bucket: i64) -> Vec<(i64, u64, u64)> {
        let mut series: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for event in self.within(from, to).filter(|event| event.campaign_id == campaign) {
            let start = millis(event).div_euclid(bucket) * bucket;
            match event.r#type.as_str() {
                "impression" => series.entry(start).or_default().0 += 1,
                "click" => series.entry(start).or_default().1 += 1,
                _ => {}
            }
        }
        series.into_iter().map(|(start, (impressions, clicks))| (start, impressions, clicks)).collect()
    }

    fn users_of_day(&self, day: i64) -> u64 {
        let users = self.within(day, day + DAY).map(|event| &event.user_id).filter(|user| !user.is_empty());
        users.collect::<std::collections::HashSet<_>>().len() as u64
    }
}

fn millis(event: &proto::Event) -> i64 {
    let at = event.occurred_at.as_ref().unwrap();
    at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_exact_for_any_window_of_whole_minutes() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let service = TestService::new().await;
    let now = now_millis();
    let oracle = Oracle::new(&mut random, now);
    for batch in oracle.events.chunks(5_000) {
        service.store(batch.to_vec()).await;
    }
    let mut query = service.query().await;
    for _ in 0..40 {
        let from = (now - random.random_range(0..3 * DAY)) / MINUTE * MINUTE;
        let length = [1, 17, 60, 61, 24 * 60, 25 * 60 + 7, 4_000][random.random_range(0..7)];
        let to = from + random.random_range(1..=length) * MINUTE;
        let limit = random.random_range(1..30);

        let request = proto::GetTopUsersRequest { window: window(from, to), limit };
        let answer = query.get_top_users(request).await.unwrap().into_inner();
        let users: Vec<_> = answer.users.into_iter().map(|user| (user.user_id, user.events)).collect();
        assert_eq!(users, oracle.top(from, to, limit as usize, |event| &event.user_id), "users of {from}..{to}");

        let request = proto::GetTopCampaignsRequest { window: window(from, to), limit };
        let answer = query.get_top_campaigns(request).await.unwrap().into_inner();
        let campaigns: Vec<_> = answer.campaigns.into_iter().map(|found| (found.campaign_id, found.events)).collect();
        assert_eq!(campaigns, oracle.top(from, to, limit as usize, |event| &event.campaign_id), "{from}..{to}");

        for (granularity, bucket) in [(Granularity::Minute, MINUTE), (Granularity::Hour, HOUR), (Granularity::Day, DAY)]
        {
            let campaign_id = format!("camp_{}", random.random_range(0..6));
            let request = proto::GetCampaignStatsRequest {
                campaign_id: campaign_id.clone(),
                window: window(from, to),
                granularity: granularity.into(),
            };
            let answer = query.get_campaign_stats(request).await.unwrap().into_inner();
            let series: Vec<_> = answer
                .series
                .iter()
                .map(|bucket| (bucket.start.unwrap().seconds * 1_000, bucket.impressions, bucket.clicks))
                .collect();
            assert_eq!(series, oracle.series(&campaign_id, from, to, bucket), "{campaign_id} of {from}..{to}");
        }
    }

    let request = proto::GetDailyActiveUsersRequest { window: window(now - 4 * DAY, now) };
    let days = query.get_daily_active_users(request).await.unwrap().into_inner().days;
    assert_eq!(days.len(), 5);
    let first = (now - 4 * DAY) / DAY * DAY;
    for (day, n) in days.iter().zip(0..) {
        assert_eq!(day.users, oracle.users_of_day(first + n * DAY), "{}", day.date);
    }
}

/// Far more users than are candidates at first, whose days are merged and are
/// not.
#[tokio::test(flavor = "multi_thread")]
async fn the_most_active_of_many_users_are_exact() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let service = TestService::new().await;
    let first_day = now_millis() / DAY * DAY - 3 * DAY;
    // As many events for everybody, but for chance: the first are hardly above
    // those behind them.
    insert_users(&service, seed, 900_000, "cityHash64({n}, 1) % 70000", first_day, 2 * DAY).await;
    service.sql("OPTIMIZE TABLE user_days FINAL").await;
    service.sql("SYSTEM STOP MERGES user_days").await;
    assert_ranked(&service, &mut random, first_day, 6).await;
    // Some far ahead, who had hardly any events before; not merged.
    let some = "toUInt64(pow(cityHash64({n}, 1) % 1000 / 1000, 4) * 90000)";
    insert_users(&service, seed + 1, 30_000, some, first_day, 3 * DAY).await;
    insert_users(&service, seed + 2, 3_000, some, first_day + DAY, DAY).await;
    assert_ranked(&service, &mut random, first_day, 12).await;
}

/// More users of a day than the service holds at a time: it takes them by
/// ranges of keys.
#[tokio::test(flavor = "multi_thread")]
async fn the_most_active_of_millions_of_users_are_exact() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let service = TestService::new().await;
    let first_day = now_millis() / DAY * DAY - 3 * DAY;
    insert_users(&service, seed, 2_300_000, "{n}", first_day, DAY).await;
    // Some of them are ahead.
    let some = format!("{} + cityHash64({{n}}, 1) % 300", seed % 1_000_000 * 1_000_000);
    insert_users(&service, seed + 1, 3_000, &some, first_day, DAY).await;
    assert_ranked(&service, &mut random, first_day - 12 * HOUR, 2).await;
}

/// Inserts events of users, whose numbers are an expression of `{n}`, evenly
/// over some time.
async fn insert_users(service: &TestService, seed: u64, events: u64, user: &str, from: i64, length: i64) {
    let user = user.replace("{n}", &format!("number + {}", seed % 1_000_000 * 1_000_000));
    service
        .sql(&format!(
            "INSERT INTO events (org_id, event_id, type, user_id, occurred_at, seq, version) \
             SELECT 'default', 'event-{seed}-' || toString(number), 'click', 'user_' || toString({user}), \
               fromUnixTimestamp64Milli({from} + toInt64(cityHash64(number, {seed}) % {length}), 'UTC'), number, 1 \
             FROM numbers({events})"
        ))
        .await;
}

/// Asks for the most active users of windows of a day, of any length, and of
/// some minutes, for which whole hours say little.
async fn assert_ranked(service: &TestService, random: &mut StdRng, first_day: i64, windows: usize) {
    let mut query = service.query().await;
    for n in 0..windows {
        let from = first_day + random.random_range(0..36 * 60) * MINUTE;
        let length = match n % 3 {
            0 => 24 * 60,
            1 => random.random_range(1..72 * 60),
            _ => random.random_range(1..40),
        };
        let to = from + length * MINUTE;
        let limit = random.random_range(1..30);
        let answer = query.get_top_users(proto::GetTopUsersRequest { window: window(from, to), limit }).await;
        let users: Vec<_> =
            answer.unwrap().into_inner().users.into_iter().map(|user| (user.user_id, user.events)).collect();
        let expected = service
            .sql(&format!(
                "SELECT user_id, count() AS events FROM events \
                 WHERE occurred_at >= fromUnixTimestamp64Milli({from}) AND occurred_at < fromUnixTimestamp64Milli({to}) \
                 GROUP BY user_id ORDER BY events DESC, user_id LIMIT {limit}"
            ))
            .await;
        let shown: Vec<_> = users.iter().map(|(user_id, events)| format!("{user_id}\t{events}")).collect();
        assert_eq!(shown, expected.lines().collect::<Vec<_>>(), "{limit} users of {from}..{to}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_every_event_once_newest_first() {
    let service = TestService::new().await;
    let now = now_millis();
    // Many events of the same millisecond, so that pages end within one.
    let events: Vec<_> =
        (0..1_000).map(|n| click(&format!("event-{n:04}"), now - i64::from(n / 50) * 30_000)).collect();
    service.store(events.clone()).await;
    let mut query = service.query().await;
    let mut request = proto::ListEventsRequest { page_size: 33, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        let page = query.list_events(request.clone()).await.unwrap().into_inner();
        listed.extend(page.events.into_iter().map(|stored| stored.event.unwrap()));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    let mut expected = events;
    expected.sort_by_key(|event| (std::cmp::Reverse(millis(event)), std::cmp::Reverse(event.event_id.clone())));
    assert_eq!(listed, expected);

    // A token belongs to its filters, and to nothing else.
    request.campaign_id = "camp_9".to_owned();
    request.page_token = query
        .list_events(proto::ListEventsRequest { page_size: 1, ..Default::default() })
        .await
        .unwrap()
        .into_inner()
        .next_page_token;
    assert_eq!(query.list_events(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_its_id_alone() {
    let service = TestService::new().await;
    let mut event = click("it's \\ me ✓", now_millis() - 40 * DAY);
    event.properties = r#"{"b":1.50,"a":"x"}"#.to_owned();
    service.store(vec![event.clone()]).await;
    let mut query = service.query().await;
    let request = proto::GetEventRequest { event_id: event.event_id.clone() };
    let found = query.get_event(request).await.unwrap().into_inner().event.unwrap().event.unwrap();
    event.properties = r#"{"a":"x","b":1.50}"#.to_owned();
    assert_eq!(found, event);
    let request = proto::GetEventRequest { event_id: "nobody".to_owned() };
    assert_eq!(query.get_event(request).await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_answer_is_dropped_as_soon_as_its_window_is_touched() {
    let service = TestService::new().await;
    let now = now_millis();
    let mut query = service.query().await;
    let request = proto::GetCampaignStatsRequest {
        campaign_id: "camp_1".to_owned(),
        window: window(now - 5 * HOUR, now - 3 * HOUR),
        granularity: 0,
    };
    for round in 0..10_u64 {
        service.store(vec![click(&format!("late-{round}"), now - 4 * HOUR)]).await;
        let first = query.get_campaign_stats(request.clone()).await.unwrap().into_inner();
        let second = query.get_campaign_stats(request.clone()).await.unwrap().into_inner();
        assert_eq!(first.series[0].clicks, round + 1);
        assert!(!first.freshness.unwrap().cached && second.freshness.unwrap().cached);
        assert_eq!(first.series, second.series);
        // What does not lie in the window does not touch the answer.
        service.store(vec![click(&format!("now-{round}"), now)]).await;
        assert!(query.get_campaign_stats(request.clone()).await.unwrap().into_inner().freshness.unwrap().cached);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_acknowledged_before_the_watermark_is_counted() {
    let service = TestService::with(&[("TALLYHOUSE_SEGMENT_LINGER_MS", "400")]).await;
    let now = now_millis();
    let mut query = service.query().await;
    let request = proto::GetCampaignStatsRequest {
        campaign_id: "camp_1".to_owned(),
        window: window(now - HOUR, now + HOUR),
        granularity: Granularity::Day.into(),
    };
    let mut ingest = service.ingest().await;
    let mut acknowledged = Vec::new();
    for n in 0..60 {
        let events = vec![click(&format!("event-{n}"), now)];
        ingest.ingest_batch(proto::IngestBatchRequest { events, durability: 0, ..Default::default() }).await.unwrap();
        acknowledged.push(now_millis());
        let answer = query.get_campaign_stats(request.clone()).await.unwrap().into_inner();
        let watermark = answer.freshness.unwrap().watermark.unwrap();
        let watermark = watermark.seconds * 1_000 + i64::from(watermark.nanos) / 1_000_000;
        let due = acknowledged.iter().filter(|at| **at <= watermark).count() as u64;
        let counted: u64 = answer.series.iter().map(|bucket| bucket.clicks).sum();
        assert!(counted >= due, "{counted} counted, {due} acknowledged before the watermark");
    }
}
