//! Sliding windows in memory: exact for a bounded number of users. Beyond, users with the same hash share a window.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::RateLimitSettings;

/// Users in a shard between two sweeps.
const SHARDS: usize = 64;

#[derive(Default)]
struct Shard {
    windows: HashMap<u64, VecDeque<Instant>>,
}

pub(super) struct MemoryWindows {
    events_max: usize,
    window: Duration,
    users_max: usize,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

impl MemoryWindows {
    pub(super) fn new(settings: RateLimitSettings) -> Self {
        Self {
            events_max: settings.events_max as usize,
            window: settings.window,
            users_max: (settings.users_max / SHARDS).max(1),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn with_window<T>(&self, user: &str, act: impl FnOnce(&mut VecDeque<Instant>) -> T) -> Option<T> {
        let hash = self.hasher.hash_one(user);
        let place = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards.get(place)?.lock();
        if shard.windows.len() >= self.users_max && !shard.windows.contains_key(&hash) {
            let window = self.window;
            shard.windows.retain(|_, times| times.back().is_some_and(|last| last.elapsed() < window));
        }
        // Where the shard is full, newcomers share one window.
        let is_full = shard.windows.len() >= self.users_max && !shard.windows.contains_key(&hash);
        let times = shard.windows.entry(if is_full { 0 } else { hash }).or_default();
        let (now, window) = (Instant::now(), self.window);
        while times.front().is_some_and(|first| now.duration_since(*first) >= window) {
            times.pop_front();
        }
        Some(act(times))
    }

    /// Takes as many as fit, and says after which time there is room again.
    pub(super) fn take(&self, user: &str, count: usize) -> (usize, Duration) {
        let taken = self.with_window(user, |times| {
            let now = Instant::now();
            let granted = self.events_max.saturating_sub(times.len()).min(count);
            times.extend((0..granted).map(|_| now));
            let oldest = times.front().map(|first| self.window.saturating_sub(now.duration_since(*first)));
            let wait = if granted < count { oldest.unwrap_or(self.window) } else { Duration::ZERO };
            (granted, wait)
        });
        taken.unwrap_or((count, Duration::ZERO))
    }

    pub(super) fn give_back(&self, user: &str, count: usize) {
        self.with_window(user, |times| {
            let left = times.len().saturating_sub(count);
            times.truncate(left);
        });
    }
}
