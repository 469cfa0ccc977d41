//! Is every stored event counted once, in every rollup and in every answer?

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tallyhouse::transport::proto::query_service_client::QueryServiceClient;
use tallyhouse::transport::proto::{
    GetCampaignStatsRequest, GetDailyActiveUsersRequest, GetTopCampaignsRequest, GetTopUsersRequest, Granularity,
    Window,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::check::{StoredById, number};
use crate::event::{moment, timestamp};
use crate::service::{LOOK_EVERY, TestService};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Longest ranking.
const LIMIT: u32 = 1_000;

/// Counts by what they count, written out.
type Counts = BTreeMap<String, Vec<u64>>;

/// Compares every rollup, summed up, with what the events give.
pub(crate) async fn check_rollups(service: &TestService, stored: &StoredById, faults: &mut Vec<String>) -> Result<()> {
    let hours: Vec<String> = (0..24).map(|hour| format!("sum(toInt32(c{hour:02}))")).collect();
    let user_days = format!("toUnixTimestamp(toDateTime(day, 'UTC')), user_id, {} FROM user_days", hours.join(", "));
    let check = |keys: usize, question: String| async move {
        let rows = service.sql(&format!("SELECT {question} GROUP BY ALL")).await?;
        let mut counts = Counts::new();
        for row in rows {
            let row = row.as_array().context("a row")?;
            let key: Vec<String> =
                row[..keys].iter().map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned)).collect();
            let row: Option<Vec<u64>> = row[keys..].iter().map(number).collect();
            counts.insert(key.join(" "), row.context("counts")?);
        }
        Ok::<_, anyhow::Error>(counts)
    };
    let expected = Expected::of(stored);
    for (rollup, keys, question, expected) in [
        (
            "campaign_minutes",
            3,
            "campaign_id, toUnixTimestamp(minute), type, sum(events) FROM campaign_minutes".to_owned(),
            expected.campaign_minutes,
        ),
        ("type_hours", 2, "toUnixTimestamp(hour), type, sum(events) FROM type_hours".to_owned(), expected.type_hours),
        ("user_days", 2, user_days, expected.user_days),
        (
            "user_minutes",
            2,
            "toUnixTimestamp(minute), user_id, sum(toInt32(events)) FROM user_minutes".to_owned(),
            expected.user_minutes,
        ),
    ] {
        compare(rollup, &check(keys, question).await?, &expected, faults);
    }
    Ok(())
}

fn compare(what: &str, counts: &Counts, expected: &Counts, faults: &mut Vec<String>) {
    let keys = counts.keys().chain(expected.keys().filter(|key| !counts.contains_key(*key)));
    let differing: Vec<&String> = keys.filter(|key| counts.get(*key) != expected.get(*key)).collect();
    if let Some(first) = differing.first() {
        let (counts, expected) = (counts.get(*first), expected.get(*first));
        faults.push(format!(
            "{what}: {} counts are wrong; [{first}] is {counts:?}, and should be {expected:?}",
            differing.len()
        ));
    }
}

#[derive(Default)]
struct Expected {
    campaign_minutes: Counts,
    type_hours: Counts,
    user_days: Counts,
    user_minutes: Counts,
}

impl Expected {
    fn of(stored: &StoredById) -> Self {
        let mut expected = Self::default();
        let add = |counts: &mut Counts, key: String| counts.entry(key).or_insert_with(|| vec![0])[0] += 1;
        for event in stored.values() {
            let payload = &event.payload;
            let (campaign, user, event_type) = (&payload.campaign_id, &payload.user_id, &payload.event_type);
            let at = payload.occurred_at.unwrap_or_default();
            let start = |length: i64| (at - at.rem_euclid(length)) / 1_000;
            if !campaign.is_empty() {
                add(&mut expected.campaign_minutes, format!("{campaign} {} {event_type}", start(MINUTE)));
            }
            add(&mut expected.type_hours, format!("{} {event_type}", start(HOUR)));
            if !user.is_empty() {
                add(&mut expected.user_minutes, format!("{} {user}", start(MINUTE)));
                let day = expected.user_days.entry(format!("{} {user}", start(DAY))).or_insert_with(|| vec![0; 24]);
                let hour = (at.rem_euclid(DAY) / HOUR) as usize;
                day[..=hour].iter_mut().for_each(|count| *count += 1);
            }
        }
        expected
    }
}

/// Compares answers of the service with what the events give.
pub(crate) async fn check_answers(service: &TestService, stored: &StoredById, faults: &mut Vec<String>) -> Result<()> {
    let times = || stored.values().filter_map(|event| event.payload.occurred_at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(()) };
    let (from, to) = (first - first.rem_euclid(DAY), last - last.rem_euclid(DAY) + DAY);
    let window = Some(Window { from: Some(timestamp(from)), to: Some(timestamp(to)) });
    let questions = Questions { client: QueryServiceClient::connect(service.url()?).await?, window };

    let (mut campaigns, mut users, mut days) = (Counts::new(), Counts::new(), BTreeMap::new());
    let mut hours: BTreeMap<&str, Counts> = BTreeMap::new();
    for event in stored.values() {
        let payload = &event.payload;
        let at = payload.occurred_at.unwrap_or_default();
        let (impression, click) = (payload.event_type == "impression", payload.event_type == "click");
        let seen = [u64::from(impression), u64::from(click)];
        if !payload.campaign_id.is_empty() {
            let counts = campaigns.entry(payload.campaign_id.clone()).or_insert_with(|| vec![0; 3]);
            counts.iter_mut().zip([1, seen[0], seen[1]]).for_each(|(count, one)| *count += one);
            if impression || click {
                let hour = (at - at.rem_euclid(HOUR)) / 1_000;
                let hours = hours.entry(&payload.campaign_id).or_default();
                let counts = hours.entry(hour.to_string()).or_insert_with(|| vec![0; 2]);
                counts.iter_mut().zip(seen).for_each(|(count, one)| *count += one);
            }
        }
        if !payload.user_id.is_empty() {
            users.entry(payload.user_id.clone()).or_insert_with(|| vec![0])[0] += 1;
            days.entry(moment(at).date().to_string())
                .or_insert_with(std::collections::BTreeSet::new)
                .insert(&payload.user_id);
        }
    }
    compare("top campaigns", &questions.top_campaigns().await?, &campaigns, faults);
    compare("top users", &questions.top_users().await?, &users, faults);
    let days = days.into_iter().map(|(day, users)| (day, vec![users.len() as u64])).collect();
    compare("daily active users", &questions.daily_active_users().await?, &days, faults);
    for (campaign, hours) in hours {
        compare(&format!("stats of {campaign}"), &questions.campaign_hours(campaign).await?, &hours, faults);
    }
    Ok(())
}

struct Questions {
    client: QueryServiceClient<Channel>,
    window: Option<Window>,
}

impl Questions {
    async fn top_campaigns(&self) -> Result<Counts> {
        let request = GetTopCampaignsRequest { window: self.window, limit: LIMIT };
        let answer = retried(|| async { self.client.clone().get_top_campaigns(request).await }).await?;
        let campaigns = answer.into_inner().campaigns.into_iter();
        Ok(campaigns.map(|count| (count.campaign_id, vec![count.events, count.impressions, count.clicks])).collect())
    }

    async fn top_users(&self) -> Result<Counts> {
        let request = GetTopUsersRequest { window: self.window, limit: LIMIT };
        let answer = retried(|| async { self.client.clone().get_top_users(request).await }).await?;
        Ok(answer.into_inner().users.into_iter().map(|count| (count.user_id, vec![count.events])).collect())
    }

    async fn daily_active_users(&self) -> Result<Counts> {
        let request = GetDailyActiveUsersRequest { window: self.window };
        let answer = retried(|| async { self.client.clone().get_daily_active_users(request).await }).await?;
        let days = answer.into_inner().days.into_iter().filter(|day| day.users > 0);
        Ok(days.map(|day| (day.date, vec![day.users])).collect())
    }

    async fn campaign_hours(&self, campaign: &str) -> Result<Counts> {
        let request = GetCampaignStatsRequest {
            campaign_id: campaign.to_owned(),
            window: self.window,
            granularity: Granularity::Hour.into(),
        };
        let answer = retried(|| async { self.client.clone().get_campaign_stats(request.clone()).await }).await?;
        let bucket = |bucket: tallyhouse::transport::proto::CampaignBucket| {
            let start = bucket.start.unwrap_or_default().seconds;
            (start.to_string(), vec![bucket.impressions, bucket.clicks])
        };
        Ok(answer.into_inner().series.into_iter().map(bucket).collect())
    }
}

/// Asks again when the service says so.
async fn retried<T, F: Future<Output = Result<T, Status>>>(ask: impl Fn() -> F) -> Result<T> {
    let mut last = None;
    for _ in 0..100 {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(status) => last = Some(status),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    last.map_or_else(|| anyhow::bail!("never asked"), |status| Err(status.into()))
}
