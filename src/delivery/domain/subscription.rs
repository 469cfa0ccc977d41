//! The settings of a subscription, and their limits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Event;

/// A subscription's number in the store.
pub type SubscriptionId = u64;

/// In which order a user's events are handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// By `seq` from 1 on. Events without one go in the order of arrival and wait for none.
    #[default]
    PerUser,
    /// In the order of arrival, whatever their seqs.
    Arrival,
}

/// What is done about a seq that does not come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapPolicy {
    /// The user's later events wait, up to the bound of the buffer.
    #[default]
    Wait,
    /// They wait for so many milliseconds; then the missing seqs are skipped.
    SkipAfterMs(u64),
}

/// Which events are delivered. Empty lists let every event through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventFilter {
    /// Types.
    #[serde(default)]
    pub types: Vec<String>,
    /// Campaigns.
    #[serde(default)]
    pub campaign_ids: Vec<String>,
    /// Sources.
    #[serde(default)]
    pub sources: Vec<String>,
}

impl EventFilter {
    /// Whether it lets an event through.
    pub fn allows(&self, event: &Event) -> bool {
        let has = |list: &[String], text: &String| list.is_empty() || list.contains(text);
        has(&self.types, &event.event_type)
            && has(&self.campaign_ids, &event.campaign_id)
            && has(&self.sources, &event.source)
    }
}

/// Waits between the attempts to handle an event, which double up to a bound; each is shortened by up to a half at
/// random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// The wait after the first attempt, in milliseconds.
    pub ms_min: u64,
    /// The longest wait, in milliseconds.
    pub ms_max: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { ms_min: 200, ms_max: 30_000 }
    }
}

impl Backoff {
    /// The wait after so many attempts. `random` is from 0 to 1.
    pub fn wait(self, attempts: u32, random: f64) -> Duration {
        let doublings = attempts.saturating_sub(1).min(30);
        let whole = self.ms_min.saturating_mul(1 << doublings).min(self.ms_max);
        Duration::from_millis(whole).mul_f64(1.0 - random.clamp(0.0, 1.0) / 2.0)
    }
}

/// How events are handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SubscriptionSettings {
    /// Which events.
    pub filter: EventFilter,
    /// In which order.
    pub order: Order,
    /// Attempts before an event is given up, from 1 to 100.
    pub attempts_max: u32,
    /// Waits between them.
    pub backoff: Backoff,
    /// Longest an attempt may take, in milliseconds, from 1 to 600,000.
    pub timeout_ms: u64,
    /// What is done about missing seqs.
    pub gap_policy: GapPolicy,
    /// Users whose events are handed out at a time, from 1 to 1,000.
    pub concurrency: usize,
    /// Whether it is paused.
    pub is_paused: bool,
}

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            filter: EventFilter::default(),
            order: Order::default(),
            attempts_max: 3,
            backoff: Backoff::default(),
            timeout_ms: 30_000,
            gap_policy: GapPolicy::default(),
            concurrency: 16,
            is_paused: false,
        }
    }
}

/// A setting is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {expected}")]
pub struct InvalidSubscription {
    /// Which.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
}

impl SubscriptionSettings {
    /// Checks the bounds.
    ///
    /// # Errors
    /// Names each setting that is out of its bounds, and what is allowed.
    pub fn check(&self) -> Result<(), Vec<InvalidSubscription>> {
        let Backoff { ms_min, ms_max } = self.backoff;
        let is_listed = |list: &[String]| list.len() <= 100 && list.iter().all(|item| (1..=256).contains(&item.len()));
        let EventFilter { types, campaign_ids, sources } = &self.filter;
        let checks = [
            ((1..=100).contains(&self.attempts_max), "attempts_max", "must be from 1 to 100"),
            ((1..=86_400_000).contains(&ms_min), "backoff_ms_min", "must be from 1 to 86,400,000"),
            ((ms_min..=86_400_000).contains(&ms_max), "backoff_ms_max", "must be from backoff_ms_min to 86,400,000"),
            ((1..=600_000).contains(&self.timeout_ms), "timeout_ms", "must be from 1 to 600,000"),
            ((1..=1_000).contains(&self.concurrency), "concurrency", "must be from 1 to 1,000"),
            (!matches!(self.gap_policy, GapPolicy::SkipAfterMs(0)), "skip_gaps_after_ms", "must be at least 1"),
            (is_listed(types), "filter.types", "must be at most 100 texts of 1 to 256 bytes"),
            (is_listed(campaign_ids), "filter.campaign_ids", "must be at most 100 texts of 1 to 256 bytes"),
            (is_listed(sources), "filter.sources", "must be at most 100 texts of 1 to 256 bytes"),
        ];
        let wrong = checks.into_iter().filter(|(is_good, ..)| !is_good);
        let wrong: Vec<_> = wrong.map(|(_, field, expected)| InvalidSubscription { field, expected }).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound_and_are_shortened_by_up_to_a_half() {
        let backoff = Backoff { ms_min: 100, ms_max: 350 };
        for (attempts, whole) in [(1, 100), (2, 200), (3, 350), (99, 350)] {
            assert_eq!(backoff.wait(attempts, 0.0), Duration::from_millis(whole));
            assert_eq!(backoff.wait(attempts, 1.0), Duration::from_millis(whole) / 2);
        }
    }

    #[test]
    fn every_setting_out_of_its_bounds_is_named() {
        assert_eq!(SubscriptionSettings::default().check(), Ok(()));
        let wrong = SubscriptionSettings {
            attempts_max: 0,
            backoff: Backoff { ms_min: 9, ms_max: 8 },
            timeout_ms: 0,
            concurrency: 1_001,
            gap_policy: GapPolicy::SkipAfterMs(0),
            filter: EventFilter { types: vec![String::new()], ..EventFilter::default() },
            ..SubscriptionSettings::default()
        };
        let named: Vec<_> = wrong.check().expect_err("wrong").into_iter().map(|error| error.field).collect();
        let expected =
            ["attempts_max", "backoff_ms_max", "timeout_ms", "concurrency", "skip_gaps_after_ms", "filter.types"];
        assert_eq!(named, expected);
    }
}
