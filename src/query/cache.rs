//! A cache of answers with single-flight: concurrent calls with the same query cause one request to
//! ClickHouse.
//!
//! An answer is stored under its query *and* the number of the last store that touched its window. When an
//! event of the window is stored, the number changes and the old answer is not found again, so a cached
//! answer equals that of the database. (Writes by other programs are not noticed; a time limit covers
//! those.)

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::future::Cache as MokaCache;

use crate::clickhouse::daily_metrics::TypeDay;
use crate::clock::ArrivalClock;
use crate::domain::{
    Answer, CampaignCount, CampaignStats, DayCount, Error, Limit, MILLIS_PER_HOUR, OrgId, Ranking, StatsQuery,
    Timestamp, UserCount, Window,
};
use crate::hour_versions::{HourVersion, HourVersions};
use crate::instruments;
use crate::log::Segments;

/// The overhead of an entry, in bytes.
const ENTRY_BYTES: usize = 512;

/// A query whose answer can be cached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CacheKey {
    CampaignStats(StatsQuery),
    TopUsers(Window, Limit),
    TopCampaigns(Window, Limit),
    DailyActiveUsers(Window),
    ActiveUsers(Window),
    TypeDays(Window, Vec<String>),
}

impl CacheKey {
    const fn window(&self) -> Window {
        match self {
            Self::CampaignStats(question) => question.window,
            Self::TopUsers(window, _)
            | Self::TopCampaigns(window, _)
            | Self::DailyActiveUsers(window)
            | Self::ActiveUsers(window)
            | Self::TypeDays(window, _) => *window,
        }
    }
}

/// An answer of any kind.
#[derive(Clone, Debug)]
pub(super) enum Value {
    CampaignStats(Arc<CampaignStats>),
    TopUsers(Arc<Ranking<UserCount>>),
    TopCampaigns(Arc<Ranking<CampaignCount>>),
    DailyActiveUsers(Arc<Vec<DayCount>>),
    ActiveUsers(u64),
    TypeDays(Arc<Vec<TypeDay>>),
}

impl Value {
    /// The approximate memory, in bytes.
    fn bytes(&self) -> usize {
        ENTRY_BYTES
            + match self {
                Self::CampaignStats(series) => size_of_val(&series[..]),
                Self::TopUsers(users) => users.iter().map(|user| size_of_val(user) + user.user_id.len()).sum(),
                Self::TopCampaigns(campaigns) => {
                    campaigns.iter().map(|campaign| size_of_val(campaign) + campaign.campaign_id.len()).sum()
                }
                Self::DailyActiveUsers(days) => size_of_val(&days[..]),
                Self::ActiveUsers(_) => 0,
                Self::TypeDays(days) => days.iter().map(|day| size_of_val(day) + day.event_type.len()).sum(),
            }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    org_id: OrgId,
    question: CacheKey,
    hour_version: HourVersion,
}

#[derive(Clone)]
struct Entry {
    value: Value,
    keep: Duration,
}

/// Limits of the cache. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// Memory for answers.
    pub bytes_max: u64,
    /// Longest time for windows that include part of the last hour.
    pub open_max: Duration,
    /// Longest time for all others.
    pub closed_max: Duration,
}

/// Caches answers to queries, within `cache_bytes_max`. Concurrent calls with the same query share
/// one request to ClickHouse.
pub(super) struct Cache {
    entries: MokaCache<Key, Entry>,
    settings: CacheSettings,
    clock: Arc<ArrivalClock>,
    segments: Arc<Segments>,
    hour_versions: Arc<HourVersions>,
}

impl Cache {
    pub(super) fn new(
        settings: CacheSettings,
        clock: Arc<ArrivalClock>,
        segments: Arc<Segments>,
        hour_versions: Arc<HourVersions>,
    ) -> Self {
        let entries = MokaCache::builder()
            .max_capacity(settings.bytes_max)
            .weigher(|_, entry: &Entry| u32::try_from(entry.value.bytes()).unwrap_or(u32::MAX))
            .expire_after(EntryExpiry)
            .build();
        Self { entries, settings, clock, segments, hour_versions }
    }

    /// Everything acknowledged at or before this time is visible to queries that start now.
    pub(super) fn watermark(&self) -> Timestamp {
        self.segments.watermark(self.clock.now())
    }

    /// The cached answer, or the one from `ask`.
    pub(super) async fn answer(
        &self,
        org_id: &OrgId,
        question: CacheKey,
        ask: impl Future<Output = Result<Value, Error>>,
    ) -> Result<Answer<Value>, Error> {
        // The watermark first: what is visible by then has touched its hours,
        // so the key below tells answers from before apart.
        let watermark = self.watermark();
        let window = question.window();
        let is_open = window.to() > self.clock.now().plus_millis(-MILLIS_PER_HOUR);
        let keep = if is_open { self.settings.open_max } else { self.settings.closed_max };
        let hour_version = self.hour_versions.latest_in(org_id, window);
        let key = Key { org_id: org_id.clone(), question, hour_version };
        let mut asked = false;
        let ask = async {
            asked = true;
            Ok(Entry { value: ask.await?, keep })
        };
        let entry = self.entries.try_get_with(key, ask).await.map_err(|error: Arc<Error>| (*error).clone())?;
        instruments::answered(!asked);
        Ok(Answer { value: entry.value, watermark, cached: !asked })
    }
}

/// The expiry of each entry.
struct EntryExpiry;

impl moka::Expiry<Key, Entry> for EntryExpiry {
    fn expire_after_create(&self, _key: &Key, entry: &Entry, _created_at: Instant) -> Option<Duration> {
        Some(entry.keep)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::hour_versions::TouchedHours;

    const BYTES_MAX: u64 = 20_000;

    fn cache(hour_versions: &Arc<HourVersions>) -> Cache {
        let minute = Duration::from_secs(60);
        let settings = CacheSettings { bytes_max: BYTES_MAX, open_max: minute, closed_max: minute };
        Cache::new(settings, Arc::default(), Arc::default(), Arc::clone(hour_versions))
    }

    fn question(hour: i64) -> CacheKey {
        let from = Timestamp::from_millis(hour * MILLIS_PER_HOUR);
        let window = Window::new(from, from.plus_millis(MILLIS_PER_HOUR)).expect("a window");
        CacheKey::TopUsers(window, Limit::RANKING_DEFAULT)
    }

    fn value() -> Value {
        Value::TopUsers(Arc::new(vec![UserCount { user_id: "x".repeat(100), events: 1 }]))
    }

    #[tokio::test]
    async fn however_many_ask_at_once_the_database_is_asked_once() {
        let (cache, asked, org) = (cache(&Arc::default()), AtomicUsize::new(0), OrgId::default_org());
        let ask = || {
            cache.answer(&org, question(1), async {
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
                Ok(value())
            })
        };
        let answers = futures_util::future::join_all((0..50).map(|_| ask())).await;
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(answers.iter().flatten().filter(|answer| !answer.cached).count(), 1);
        assert_eq!(answers.iter().flatten().count(), 50);
    }

    #[tokio::test]
    async fn an_error_is_not_kept() {
        let (cache, org) = (cache(&Arc::default()), OrgId::default_org());
        assert!(cache.answer(&org, question(1), async { Err(Error::internal()) }).await.is_err());
        assert!(cache.answer(&org, question(1), async { Ok(value()) }).await.is_ok_and(|answer| !answer.cached));
    }

    #[tokio::test]
    async fn what_is_stored_in_its_window_outdates_an_answer() {
        let hour_versions = Arc::default();
        let (cache, org) = (cache(&hour_versions), OrgId::default_org());
        for (hour, is_cached_after) in [(2, true), (1, false)] {
            let _ = cache.answer(&org, question(1), async { Ok(value()) }).await;
            let mut touched = TouchedHours::default();
            touched.touch(org.as_str(), Timestamp::from_millis(hour * MILLIS_PER_HOUR));
            hour_versions.note_stored(touched);
            let answer = cache.answer(&org, question(1), async { Ok(value()) }).await;
            assert!(answer.is_ok_and(|answer| answer.cached == is_cached_after), "hour {hour}");
        }
    }

    #[tokio::test]
    async fn memory_stays_within_its_bound() {
        let (cache, org) = (cache(&Arc::default()), OrgId::default_org());
        for hour in 0..500 {
            let _ = cache.answer(&org, question(hour), async { Ok(value()) }).await;
        }
        cache.entries.run_pending_tasks().await;
        assert!(cache.entries.weighted_size() <= BYTES_MAX, "{}", cache.entries.weighted_size());
        assert!(cache.entries.entry_count() > 0);
    }
}
