//! Limits the events of a user in any second, by a sliding window: in Redis, so that several services share it, or in
//! memory when no Redis is configured.

mod memory;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::Script;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use crate::redis::RedisConnection;
use memory::MemoryWindows;

/// Longest that a charge waits for Redis, before the limits in memory are used instead.
const REDIS_WAIT_MAX: Duration = Duration::from_millis(250);
/// For how long Redis is not asked after it did not answer.
const REDIS_PAUSE: Duration = Duration::from_millis(500);
/// How long the window of a user who sends nothing is kept in Redis.
const IDLE_KEPT: Duration = Duration::from_secs(60);

/// A limit.
#[derive(Clone, Copy, Debug)]
pub struct RateLimitSettings {
    /// Events of a user in any window; 0: no limit.
    pub events_max: u32,
    /// The window.
    pub window: Duration,
    /// Users that are told apart in memory.
    pub users_max: usize,
}

/// What a user was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// How many of the events, the first ones.
    pub events: usize,
    /// After which time there is room again; zero when all were granted.
    pub wait: Duration,
    /// What to give back should they not be accepted.
    members: Vec<String>,
    is_in_redis: bool,
}

/// Limits the deliveries of each user in a sliding window, in Redis with a fallback in memory.
/// Shared by all handlers.
pub struct UserRateLimit {
    settings: RateLimitSettings,
    redis: Option<Arc<RedisConnection>>,
    script: Script,
    memory: MemoryWindows,
    /// Redis is not asked before.
    ask_after: Mutex<Option<Instant>>,
    /// Makes members of windows unique: of this process by a random prefix.
    prefix: u32,
    taken: AtomicU64,
}

/// The script that a connection of a [`UserRateLimit`] must know.
pub fn rate_limit_script() -> Script {
    Script::new(include_str!("take.lua"))
}

impl UserRateLimit {
    /// Kept in this Redis, if there is one.
    pub fn new(settings: RateLimitSettings, redis: Option<Arc<RedisConnection>>) -> Self {
        Self {
            settings,
            redis,
            script: rate_limit_script(),
            memory: MemoryWindows::new(settings),
            ask_after: Mutex::default(),
            prefix: rand::random(),
            taken: AtomicU64::new(0),
        }
    }

    /// Charges users for events: each for so many. Answers in the same order.
    pub async fn take(&self, users: &[(&str, usize)]) -> Vec<Granted> {
        let RateLimitSettings { events_max, window, .. } = self.settings;
        let all =
            |count: usize| Granted { events: count, wait: Duration::ZERO, members: Vec::new(), is_in_redis: false };
        if events_max == 0 {
            return users.iter().map(|(_, count)| all(*count)).collect();
        }
        let Some(redis) = self.asked() else { return self.take_in_memory(users) };
        let mut pipeline = ::redis::pipe();
        let mut members = Vec::with_capacity(users.len());
        for (user, count) in users {
            let own: Vec<String> = (0..*count).map(|_| self.member()).collect();
            let command = pipeline.cmd("EVALSHA").arg(self.script.get_hash()).arg(1).arg(key(user));
            command.arg(events_max).arg(micros(window)).arg(IDLE_KEPT.as_millis().to_string()).arg(&own);
            members.push(own);
        }
        let Ok(Ok(granted)) = timeout(REDIS_WAIT_MAX, redis.send::<(usize, u64)>(pipeline)).await else {
            if self.ask_after.lock().replace(Instant::now() + REDIS_PAUSE).is_none() {
                tracing::warn!("Redis does not answer in time; rate limits are kept in memory");
            }
            return self.take_in_memory(users);
        };
        *self.ask_after.lock() = None;
        let grant = |((events, wait), mut members): ((usize, u64), Vec<String>)| {
            members.truncate(events);
            Granted { events, wait: Duration::from_micros(wait), members, is_in_redis: true }
        };
        granted.into_iter().zip(members).map(grant).collect()
    }

    /// Redis, unless there is none or it is left alone for a while.
    fn asked(&self) -> Option<&RedisConnection> {
        let is_left_alone = self.ask_after.lock().is_some_and(|after| Instant::now() < after);
        self.redis.as_deref().filter(|_| !is_left_alone)
    }

    fn take_in_memory(&self, users: &[(&str, usize)]) -> Vec<Granted> {
        let take = |(user, count): &(&str, usize)| {
            let (events, wait) = self.memory.take(user, *count);
            Granted { events, wait, members: Vec::new(), is_in_redis: false }
        };
        users.iter().map(take).collect()
    }

    /// Some of what a user was granted was not accepted: the last so many are not charged.
    pub async fn give_back(&self, user: &str, granted: &Granted, count: usize) {
        if count == 0 || self.settings.events_max == 0 {
            return;
        }
        let Some(redis) = self.asked().filter(|_| granted.is_in_redis) else {
            self.memory.give_back(user, count);
            return;
        };
        let mut pipeline = ::redis::pipe();
        let from = granted.members.len().saturating_sub(count);
        pipeline.cmd("ZREM").arg(key(user)).arg(granted.members.get(from..).unwrap_or_default());
        // If Redis is away, the window is a little too full for a second.
        let _ = timeout(REDIS_WAIT_MAX, redis.send::<i64>(pipeline)).await;
    }

    /// Whether limits are kept in memory though there is a Redis: it is away.
    pub fn is_in_memory(&self) -> bool {
        self.redis.as_ref().is_none_or(|redis| redis.is_away()) || self.ask_after.lock().is_some()
    }

    fn member(&self) -> String {
        format!("{:08x}-{:x}", self.prefix, self.taken.fetch_add(1, Ordering::Relaxed))
    }
}

fn key(user: &str) -> String {
    format!("rate:{user}")
}

fn micros(window: Duration) -> u64 {
    u64::try_from(window.as_micros()).unwrap_or(u64::MAX)
}

/// How often each user is named, in the order of their first events.
pub fn count_users<'a>(users: impl Iterator<Item = &'a str>) -> Vec<(&'a str, usize)> {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for user in users {
        let place = *places.entry(user).or_insert(counts.len());
        match counts.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => counts.push((user, 1)),
        }
    }
    counts
}

#[cfg(test)]
mod tests;
