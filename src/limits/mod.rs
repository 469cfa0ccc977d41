//! Rate limits: new events of an organization and of each of its users, and queries of an organization,
//! in a sliding window.
//!
//! Only accepted events are counted: duplicates, conflicts and rejected events cost nothing. A batch is
//! accepted as a whole or refused. See `docs/rate-limits.md`.

mod table;
mod window;

use std::hash::Hasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::domain::{Breach, Error, OrgId, Quota};
use table::{Subject, Table, WindowCharge};
use window::{SLOTS, Slot};

/// Users that a refusal names at most.
const NAMED_MAX: usize = 16;

/// The limits. See the settings of the same names in [`crate::config::Config`]; 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitSettings {
    /// New events of an organization.
    pub org_events_per_second: u32,
    /// New events of a user.
    pub user_events_per_second: u32,
    /// Queries of an organization.
    pub org_queries_per_second: u32,
    /// The length of the window. Its allowance is the rate times its seconds.
    pub window_seconds: u32,
    /// Organizations and users with separate windows.
    pub subjects_max: usize,
}

/// One limit, when it is on.
struct Limit {
    quota: Quota,
    table: Table,
    refusals: AtomicU64,
}

/// Checks new events and queries against the configured limits. Shared by all calls of the service;
/// counts are in memory and are lost at a restart. A limit that is off costs nothing.
pub struct RateLimits {
    org_events: Option<Limit>,
    user_events: Option<Limit>,
    org_queries: Option<Limit>,
    /// The time between slots, on the monotonic clock.
    slot: Duration,
    started: Instant,
    hasher: SipHasher13,
}

/// The charge of a batch. It is refunded if it is dropped before [`Charge::keep`].
#[derive(Default)]
pub struct Charge {
    taken: Vec<(Policy, WindowCharge)>,
    limits: Option<Arc<RateLimits>>,
}

#[derive(Clone, Copy)]
enum Policy {
    OrgEvents,
    UserEvents,
}

impl Charge {
    /// Confirms the charge: the events were accepted.
    pub fn keep(mut self) {
        self.taken.clear();
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(limits) = &self.limits else { return };
        for (policy, taken) in self.taken.drain(..) {
            if let Some(limit) = limits.limit(policy) {
                limit.table.refund(taken);
            }
        }
    }
}

impl RateLimits {
    /// Creates limiters for these limits.
    pub fn new(settings: LimitSettings) -> Arc<Self> {
        let LimitSettings { window_seconds, subjects_max, .. } = settings;
        let limit = |policy, per_second: u32, make: fn(u32, usize) -> Table| {
            let max = per_second.saturating_mul(window_seconds);
            let window = Duration::from_secs(window_seconds.into());
            let quota = Quota { policy, max, window };
            (max > 0).then(|| Limit { quota, table: make(max, subjects_max), refusals: AtomicU64::new(0) })
        };
        Arc::new(Self {
            org_events: limit("org-events", settings.org_events_per_second, Table::of_owners),
            user_events: limit("user-events", settings.user_events_per_second, Table::of_owned),
            org_queries: limit("org-queries", settings.org_queries_per_second, Table::of_owners),
            slot: Duration::from_secs(window_seconds.into()) / SLOTS,
            started: Instant::now(),
            hasher: SipHasher13::new_with_keys(rand::random(), rand::random()),
        })
    }

    /// Whether users are counted.
    pub const fn count_users(&self) -> bool {
        self.user_events.is_some()
    }

    /// Charges an organization for new events, and their users (a user as often as it has events;
    /// empty for none).
    ///
    /// # Errors
    /// `TooLarge` if they exceed a whole window; `Limited` if they do not fit now. Nothing is
    /// charged then.
    pub fn charge(self: &Arc<Self>, org_id: &OrgId, events: u32, users: Vec<&str>) -> Result<Charge, Error> {
        if events == 0 || (self.org_events.is_none() && self.user_events.is_none()) {
            return Ok(Charge::default());
        }
        let now = self.started.elapsed();
        let mut charge = Charge { taken: Vec::new(), limits: Some(Arc::clone(self)) };
        let org = self.organization(org_id);
        if let Some(limit) = &self.org_events {
            let taken = self.take(limit, org, events, now, || format!("organization:{}", org_id.as_str()))?;
            charge.taken.push((Policy::OrgEvents, taken.map_err(|breach| limit.refusal(vec![breach]))?));
        }
        if let Some(limit) = &self.user_events {
            let mut breaches = Vec::new();
            for (user, events) in counted(users) {
                let subject = Subject { key: self.hash(&[org_id.as_str(), user]), ..org };
                match self.take(limit, subject, events, now, || format!("user:{user}"))? {
                    Ok(taken) => charge.taken.push((Policy::UserEvents, taken)),
                    Err(breach) => breaches.push(breach),
                }
            }
            if !breaches.is_empty() {
                return Err(limit.refusal(breaches));
            }
        }
        Ok(charge)
    }

    /// Charges an organization for a query.
    ///
    /// # Errors
    /// `Limited` if it has exceeded its limit.
    pub fn charge_query(&self, org_id: &OrgId) -> Result<(), Error> {
        let Some(limit) = &self.org_queries else { return Ok(()) };
        let name = || format!("organization:{}", org_id.as_str());
        let taken = self.take(limit, self.organization(org_id), 1, self.started.elapsed(), name)?;
        taken.map(drop).map_err(|breach| limit.refusal(vec![breach]))
    }

    /// The number of calls that each limit has refused, with its name.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.all().map(|limit| (limit.quota.policy, limit.refusals.load(Ordering::Relaxed)))
    }

    /// The number of organizations and users with a window, by limit.
    pub fn subjects(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.all().map(|limit| (limit.quota.policy, limit.table.subjects()))
    }

    /// How many new events an organization can still send now; none without a limit.
    pub fn org_events_left(&self, org_id: &OrgId) -> Option<(Quota, u32)> {
        let limit = self.org_events.as_ref()?;
        Some((limit.quota, limit.table.left(self.organization(org_id), self.slot_at(self.started.elapsed()))))
    }

    fn all(&self) -> impl Iterator<Item = &Limit> {
        [&self.org_events, &self.user_events, &self.org_queries].into_iter().flatten()
    }

    const fn limit(&self, policy: Policy) -> Option<&Limit> {
        match policy {
            Policy::OrgEvents => self.org_events.as_ref(),
            Policy::UserEvents => self.user_events.as_ref(),
        }
    }

    fn take(
        &self,
        limit: &Limit,
        subject: Subject,
        count: u32,
        now: Duration,
        name: impl Fn() -> String,
    ) -> Result<Result<WindowCharge, Breach>, Error> {
        let Quota { max, window, .. } = limit.quota;
        if count > max {
            let (name, seconds) = (name(), window.as_secs());
            let message =
                format!("{name} may have {max} new events in {seconds} seconds; this batch alone has {count}");
            return Err(Error::too_large(message));
        }
        let taken = limit.table.take(subject, count, self.slot_at(now));
        Ok(taken.map_err(|free_in| {
            let free_at = self.slot.as_nanos().saturating_mul(free_in.into());
            let wait = free_at.saturating_sub(now.as_nanos());
            let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
            let left = limit.table.left(subject, self.slot_at(now));
            Breach { quota: limit.quota, subject: name(), left, wait }
        }))
    }

    fn slot_at(&self, now: Duration) -> Slot {
        Slot::try_from(now.as_nanos() / self.slot.as_nanos().max(1)).unwrap_or(Slot::MAX)
    }

    fn organization(&self, org_id: &OrgId) -> Subject {
        let key = self.hash(&[org_id.as_str()]);
        Subject { key, owner: key }
    }

    /// A keyed hash. Two users with the same hash share a limit.
    fn hash(&self, parts: &[&str]) -> u64 {
        let mut hasher = self.hasher;
        for part in parts {
            hasher.write(part.as_bytes());
            hasher.write_u8(0xff); // In no text.
        }
        hasher.finish()
    }
}

impl Limit {
    /// The error that names the exceeded limits, at most the first ones.
    fn refusal(&self, mut breaches: Vec<Breach>) -> Error {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        let wait = breaches.iter().map(|breach| breach.wait).max().unwrap_or_default();
        breaches.truncate(NAMED_MAX);
        let Quota { max, window, .. } = self.quota;
        let subjects: Vec<&str> = breaches.iter().map(|breach| &*breach.subject).collect();
        let message = format!(
            "over the limit of {max} in {} seconds: {}; nothing of this call was taken",
            window.as_secs(),
            subjects.join(", ")
        );
        Error::limited(message, wait, breaches)
    }
}

/// Each user once, with its number of events.
fn counted(mut users: Vec<&str>) -> impl Iterator<Item = (&str, u32)> {
    users.retain(|user| !user.is_empty());
    users.sort_unstable();
    let mut counted: Vec<(&str, u32)> = Vec::with_capacity(users.len().min(NAMED_MAX));
    for user in users {
        match counted.last_mut() {
            Some((last, count)) if *last == user => *count += 1,
            _ => counted.push((user, 1)),
        }
    }
    counted.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorCode;

    fn limits(org: u32, user: u32) -> Arc<RateLimits> {
        RateLimits::new(LimitSettings {
            org_events_per_second: org,
            user_events_per_second: user,
            org_queries_per_second: 2,
            window_seconds: 100,
            subjects_max: 10_000,
        })
    }

    fn org(name: &str) -> OrgId {
        OrgId::parse(name).expect("an id")
    }

    #[test]
    fn a_refused_batch_charges_nobody() {
        let limits = limits(0, 1);
        let acme = org("acme");
        limits.charge(&acme, 60, vec!["ann"; 60]).expect("room").keep();
        let mixed = [vec!["ann"; 50], vec!["bob"; 90], vec![""; 500]].concat();
        let error = limits.charge(&acme, 640, mixed).err().expect("a refusal");
        assert_eq!(error.code, ErrorCode::Limited);
        assert!(error.retry_after.is_some_and(|wait| wait > Duration::from_secs(95)), "{error:?}");
        assert_eq!(error.breaches.iter().map(|breach| &*breach.subject).collect::<Vec<_>>(), ["user:ann"]);
        limits.charge(&acme, 100, vec!["bob"; 100]).expect("bob was not charged").keep();
        limits.charge(&acme, 40, vec!["ann"; 40]).expect("ann has this left").keep();
        limits.charge(&org("other"), 100, vec!["ann"; 100]).expect("another organization's ann").keep();
        assert_eq!(limits.refusals().next(), Some(("user-events", 1)));
    }

    #[test]
    fn what_was_not_kept_is_given_back() {
        let limits = limits(1, 1);
        let acme = org("acme");
        drop(limits.charge(&acme, 100, vec!["ann"; 100]).expect("room"));
        limits.charge(&acme, 100, vec!["ann"; 100]).expect("room again").keep();
        assert_eq!(limits.org_events_left(&acme).map(|(_, left)| left), Some(0));
        let error = limits.charge(&acme, 1, vec![]).err().expect("a refusal");
        assert_eq!(error.breaches[0].subject, "organization:acme");
    }

    #[test]
    fn what_never_fits_is_not_told_to_wait() {
        let limits = limits(2, 1);
        let error = limits.charge(&org("acme"), 201, vec![]).err().expect("a refusal");
        assert_eq!((error.code, error.retry_after), (ErrorCode::TooLarge, None));
        let error = limits.charge(&org("acme"), 101, vec!["ann"; 101]).err().expect("a refusal");
        assert_eq!((error.code, error.retry_after), (ErrorCode::TooLarge, None));
        limits.charge(&org("acme"), 200, vec![]).expect("nothing was charged").keep();
    }

    #[test]
    fn questions_have_a_limit_of_their_own() {
        let limits = limits(0, 0);
        let asked = (0..300).filter(|_| limits.charge_query(&org("acme")).is_ok()).count();
        assert_eq!(asked, 200);
        limits.charge_query(&org("other")).expect("another organization");
        limits.charge(&org("acme"), 1_000_000, vec![]).expect("no limit").keep();
    }
}
