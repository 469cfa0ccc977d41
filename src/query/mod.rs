//! Queries: answered from the rollups, through a cache that is invalidated by stored events. Lists and
//! single events are read from the raw table and never cached.

mod cache;
mod summary;

use std::sync::Arc;

use cache::{Cache, CacheKey, Value};

pub use cache::CacheSettings;

use crate::clickhouse::daily_metrics::DailyMetrics;
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clickhouse::query_store::{QueryStore, TOP_USERS_AT_A_TIME};
use crate::clock::ArrivalClock;
use crate::domain::{
    Answer, CampaignCount, CampaignStats, DayCount, Error, EventFilter, EventPage, Limit, MILLIS_PER_DAY,
    MILLIS_PER_MINUTE, OrgId, PageKey, Ranking, StatsQuery, StoredEvent, UserCount, Window, check_days,
};
use crate::hour_versions::HourVersions;
use crate::log::Segments;

/// Answers queries about one organization at a time.
pub struct Queries {
    answers: QueryStore,
    figures: DailyMetrics,
    cache: Cache,
    limiter: Arc<QueryLimiter>,
    clock: Arc<ArrivalClock>,
}

impl Queries {
    /// Creates it for this database and limiter.
    pub fn new(
        answers: QueryStore,
        figures: DailyMetrics,
        cache: CacheSettings,
        limiter: Arc<QueryLimiter>,
        clock: Arc<ArrivalClock>,
        segments: Arc<Segments>,
        hour_versions: Arc<HourVersions>,
    ) -> Self {
        let cache = Cache::new(cache, Arc::clone(&clock), segments, hour_versions);
        Self { answers, figures, cache, limiter, clock }
    }

    /// One campaign's counts over time.
    pub async fn campaign_stats(
        &self,
        org_id: &OrgId,
        question: StatsQuery,
    ) -> Result<Answer<Arc<CampaignStats>>, Error> {
        let asked = question.clone();
        let ask = async {
            let stats = self.limiter.run(org_id, |ticket| self.answers.campaign_stats(ticket, org_id, &asked)).await?;
            Ok(Value::CampaignStats(Arc::new(stats)))
        };
        let answer = self.cache.answer(org_id, CacheKey::CampaignStats(question), ask).await?;
        expect(answer, |value| if let Value::CampaignStats(stats) = value { Some(stats) } else { None })
    }

    /// The users with the most events of the window, which is extended to whole minutes.
    pub async fn top_users(
        &self,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
    ) -> Result<Answer<Arc<Ranking<UserCount>>>, Error> {
        let window = window.outwards_to(MILLIS_PER_MINUTE);
        let ask = async {
            let ask = |ticket, at_a_time| self.answers.top_users(ticket, org_id, window, limit, at_a_time);
            let users = self.limiter.run_several(org_id, TOP_USERS_AT_A_TIME, ask).await?;
            Ok(Value::TopUsers(Arc::new(users)))
        };
        let answer = self.cache.answer(org_id, CacheKey::TopUsers(window, limit), ask).await?;
        expect(answer, |value| if let Value::TopUsers(users) = value { Some(users) } else { None })
    }

    /// The campaigns with the most events of the window, which is extended to whole minutes.
    pub async fn top_campaigns(
        &self,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
    ) -> Result<Answer<Arc<Ranking<CampaignCount>>>, Error> {
        let window = window.outwards_to(MILLIS_PER_MINUTE);
        let ask = async {
            let campaigns =
                self.limiter.run(org_id, |ticket| self.answers.top_campaigns(ticket, org_id, window, limit)).await?;
            Ok(Value::TopCampaigns(Arc::new(campaigns)))
        };
        let answer = self.cache.answer(org_id, CacheKey::TopCampaigns(window, limit), ask).await?;
        expect(answer, |value| if let Value::TopCampaigns(campaigns) = value { Some(campaigns) } else { None })
    }

    /// The distinct users of each day of the window, which is extended to whole days. Days without
    /// events are listed with 0.
    ///
    /// # Errors
    /// `Invalid` for more than 3,660 days.
    pub async fn daily_active_users(
        &self,
        org_id: &OrgId,
        window: Window,
    ) -> Result<Answer<Arc<Vec<DayCount>>>, Error> {
        check_days("to", window).map_err(|error| Error::invalid(vec![error]))?;
        let window = window.outwards_to(MILLIS_PER_DAY);
        let ask = async {
            let found =
                self.limiter.run(org_id, |ticket| self.answers.daily_active_users(ticket, org_id, window)).await?;
            Ok(Value::DailyActiveUsers(Arc::new(with_empty_days(window, &found))))
        };
        let answer = self.cache.answer(org_id, CacheKey::DailyActiveUsers(window), ask).await?;
        expect(answer, |value| if let Value::DailyActiveUsers(days) = value { Some(days) } else { None })
    }

    /// A page of events, newest first; fewer than `limit` if together they exceed 3 MiB, but at
    /// least one. Never cached.
    pub async fn list_events(
        &self,
        org_id: &OrgId,
        filter: &EventFilter,
        limit: Limit,
        after: Option<&PageKey>,
    ) -> Result<Answer<EventPage>, Error> {
        let watermark = self.cache.watermark();
        let mut events = self
            .limiter
            .run(org_id, |ticket| self.answers.list_events(ticket, org_id, filter, limit.get() + 1, after))
            .await?;
        // One more than asked for tells whether there is a further page.
        let fit = fitting(&events).min(limit.get() as usize);
        let has_more = events.len() > fit;
        events.truncate(fit);
        let key = |event: &StoredEvent| PageKey { occurred_at: event.occurred_at, event_id: event.event_id.clone() };
        let next = if has_more { events.last().map(key) } else { None };
        Ok(Answer { value: EventPage { events, next }, watermark, cached: false })
    }

    /// One event. Never cached.
    ///
    /// # Errors
    /// `NotFound` if there is no event with this id.
    pub async fn event(&self, org_id: &OrgId, event_id: &str) -> Result<Answer<StoredEvent>, Error> {
        let watermark = self.cache.watermark();
        let event = self.limiter.run(org_id, |ticket| self.answers.event(ticket, org_id, event_id)).await?;
        let value = event.ok_or_else(|| Error::not_found("there is no event with this id"))?;
        Ok(Answer { value, watermark, cached: false })
    }
}

/// Takes the value out of an answer to a question of its kind.
/// Most bytes of a page of events: with what a transport adds, it fits in the
/// 4 MiB that gRPC clients accept by default.
const PAGE_BYTES_MAX: usize = 3 << 20;
/// About how many bytes an event takes beside its texts.
const EVENT_BYTES: usize = 100;

/// How many of these events fit in one page; at least one.
fn fitting(events: &[StoredEvent]) -> usize {
    let mut bytes = 0;
    let fits = |event: &&StoredEvent| {
        let StoredEvent { event_id, event_type, campaign_id, creative_id, source, user_id, properties, .. } = event;
        let texts = [event_id, event_type, campaign_id, creative_id, source, user_id, properties];
        bytes += EVENT_BYTES + texts.into_iter().map(String::len).sum::<usize>();
        bytes <= PAGE_BYTES_MAX
    };
    events.iter().take_while(fits).count().max(1)
}

fn expect<T>(answer: Answer<Value>, take: impl FnOnce(Value) -> Option<T>) -> Result<Answer<T>, Error> {
    let Answer { value, watermark, cached } = answer;
    // A question is only ever answered with its own kind.
    let value = take(value).ok_or_else(Error::internal)?;
    Ok(Answer { value, watermark, cached })
}

fn with_empty_days(window: Window, found: &[DayCount]) -> Vec<DayCount> {
    let mut found = found.iter().peekable();
    let mut day = window.from();
    let mut days = Vec::new();
    while day < window.to() {
        let users = found.next_if(|count| count.day == day).map_or(0, |count| count.users);
        days.push(DayCount { day, users });
        day = day.plus_millis(MILLIS_PER_DAY);
    }
    days
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn days_without_events_are_listed() {
        let day = |n: i64| Timestamp::from_millis(n * MILLIS_PER_DAY);
        let window = Window::new(day(1), day(5)).unwrap();
        let found = [DayCount { day: day(2), users: 7 }, DayCount { day: day(4), users: 9 }];
        let users: Vec<u64> = with_empty_days(window, &found).iter().map(|count| count.users).collect();
        assert_eq!(users, [0, 7, 0, 9]);
    }
}
