//! Limits the calls that are served at a time, in four classes with separate limits, so that no caller can
//! use up what others need.
//!
//! | class | calls | limits |
//! |---|---|---|
//! | probe | watchers of health, and reflection | [`PROBES_MAX`], [`PROBES_PER_CONNECTION_MAX`] |
//! | open | routes that require no token, refused calls whose body is discarded | [`OPEN_CALLS_MAX`], [`OPEN_CALLS_PER_CONNECTION_MAX`] |
//! | call | calls with a token | [`Config::requests_in_flight_max`], of which an organization has a part |
//! | stream | long calls: ingest streams, watchers, audits | [`Config::streams_max`], [`Config::streams_per_connection_max`], of which an organization has a part |
//!
//! A call holds its permit until its answer has been written. Short health checks have a separate limit,
//! see [`HealthChecks`]; `/healthz` and `/readyz`, which have no body and answer at once, have none.
//!
//! The bytes of incomplete requests are limited here as well.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::domain::{Error, OrgId};

/// The `retry_after` of refused calls.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Watchers of health and reflection streams at a time, and on one connection.
const PROBES_MAX: usize = 64;
const PROBES_PER_CONNECTION_MAX: usize = 4;
/// Health checks at a time.
const HEALTH_CHECKS_MAX: usize = 256;
/// Calls without a token at a time, and on one connection.
const OPEN_CALLS_MAX: usize = 1_024;
const OPEN_CALLS_PER_CONNECTION_MAX: usize = 64;
/// The part of the calls, and of the streams, that one organization may have
/// (as a divisor), where there is more than one.
const ORG_SHARE: usize = 4;
/// The part of the bytes, of unwritten answers and of unfinished requests, that
/// one organization may hold (as a divisor), where there is more than one.
const ORG_BYTES_SHARE: u64 = 2;
/// Organizations that are remembered before those without a caller are
/// forgotten.
const ORGS_BEFORE_SWEEP: usize = 1_024;

/// Kinds of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Watchers of health, and open reflection.
    Probe,
    /// Routes that require no token, and refused calls whose body is discarded.
    Open,
    /// Unary calls with a token.
    Call,
    /// Ingest streams, watchers and audits.
    Stream,
}

/// How many classes there are.
pub(super) const CLASSES: usize = 4;

/// What an organization's calls hold at a time.
#[derive(Debug, Default)]
pub(super) struct OrgUse {
    permits: [AtomicUsize; CLASSES],
    /// Bytes of its answers that wait to be written.
    unwritten_bytes: AtomicU64,
    /// Bytes of its requests that have not arrived as a whole.
    unfinished_bytes: AtomicU64,
}

/// What one connection's calls hold at a time.
#[derive(Debug, Default)]
pub(super) struct ConnectionUse {
    permits: [AtomicUsize; CLASSES],
}

/// Which limit kept a call from a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LimitReached {
    /// The organization has as many as it may.
    Organization,
    /// The connection has as many as it may.
    Connection,
    /// The service has as many as it may, perhaps because those who were served do not read.
    Service,
}

impl From<LimitReached> for Error {
    fn from(reached: LimitReached) -> Self {
        let problem = match reached {
            LimitReached::Organization => "too many requests of this organization at a time",
            LimitReached::Connection => "too many requests of this kind on one connection at a time",
            LimitReached::Service => "too many requests at a time",
        };
        Self::exhausted(problem, RETRY_AFTER)
    }
}

/// What every organization with a caller holds.
#[derive(Debug, Default)]
pub(super) struct OrgUses(Mutex<HashMap<OrgId, Weak<OrgUse>>>);

impl OrgUses {
    /// What an organization holds: the same for all its callers.
    pub(super) fn of(&self, org_id: &OrgId) -> Arc<OrgUse> {
        let mut uses = self.0.lock();
        if let Some(known) = uses.get(org_id).and_then(Weak::upgrade) {
            return known;
        }
        if uses.len() >= ORGS_BEFORE_SWEEP {
            uses.retain(|_, used| used.strong_count() > 0);
        }
        let new = Arc::new(OrgUse::default());
        uses.insert(org_id.clone(), Arc::downgrade(&new));
        new
    }
}

/// The limits of a class.
#[derive(Clone, Copy, Debug)]
struct Limits {
    all: usize,
    connection: usize,
    org: usize,
}

/// The calls that are served.
pub(super) struct Concurrency {
    limits: [Limits; CLASSES],
    taken: [AtomicUsize; CLASSES],
    /// Bytes of requests that have not arrived as a whole, of all callers.
    unfinished_bytes: AtomicU64,
    unfinished_bytes_max: u64,
    /// Of these, one organization may hold so many.
    org_unfinished_bytes_max: u64,
    /// Bytes of answers that one organization may leave unread.
    org_unwritten_bytes_max: u64,
    health_checks: HealthChecks,
}

impl Concurrency {
    /// Within the configured limits.
    pub(super) fn new(config: &Config) -> Arc<Self> {
        let share = if config.has_authentication() { ORG_SHARE } else { 1 };
        let (calls, streams) = (config.requests_in_flight_max, config.streams_max);
        let probes = Limits { all: PROBES_MAX, connection: PROBES_PER_CONNECTION_MAX, org: usize::MAX };
        let open = Limits { all: OPEN_CALLS_MAX, connection: OPEN_CALLS_PER_CONNECTION_MAX, org: usize::MAX };
        let calls = Limits { all: calls, connection: usize::MAX, org: calls.div_ceil(share) };
        let streams =
            Limits { all: streams, connection: config.streams_per_connection_max, org: streams.div_ceil(share) };
        let bytes_share = if config.has_authentication() { ORG_BYTES_SHARE } else { 1 };
        let unfinished_bytes_max = u64::from(config.request_bytes_in_flight_max);
        Arc::new(Self {
            limits: [probes, open, calls, streams],
            taken: std::array::from_fn(|_| AtomicUsize::new(0)),
            unfinished_bytes: AtomicU64::new(0),
            unfinished_bytes_max,
            org_unfinished_bytes_max: unfinished_bytes_max / bytes_share,
            org_unwritten_bytes_max: config.response_bytes_in_flight_max / bytes_share,
            health_checks: HealthChecks::default(),
        })
    }

    /// Places for health checks.
    pub(super) const fn health_checks(&self) -> &HealthChecks {
        &self.health_checks
    }

    /// Whether an organization reads its answers well enough to have more.
    pub(super) fn has_room_for_answers(&self, org: &OrgUse) -> bool {
        org.unwritten_bytes.load(Ordering::Relaxed) < self.org_unwritten_bytes_max
    }

    /// A permit for a call of this class.
    ///
    /// # Errors
    /// When the service, the connection or the organization has as many as it
    /// may.
    pub(super) fn enter(
        self: &Arc<Self>,
        class: Class,
        connection: &Arc<ConnectionUse>,
        org: Option<&Arc<OrgUse>>,
    ) -> Result<Permit, LimitReached> {
        let limits = self.limits[class as usize];
        let permit =
            Permit { concurrency: Arc::clone(self), connection: Arc::clone(connection), org: org.cloned(), class };
        // Counted first, so that it is given back when it is refused.
        let of_all = self.taken[class as usize].fetch_add(1, Ordering::Relaxed);
        let of_connection = connection.permits[class as usize].fetch_add(1, Ordering::Relaxed);
        let of_org = org.map_or(0, |org| org.permits[class as usize].fetch_add(1, Ordering::Relaxed));
        if of_org >= limits.org {
            Err(LimitReached::Organization)
        } else if of_connection >= limits.connection {
            Err(LimitReached::Connection)
        } else if of_all >= limits.all {
            Err(LimitReached::Service)
        } else {
            Ok(permit)
        }
    }

    /// How many calls have permits.
    pub(super) fn in_flight(&self) -> usize {
        self.taken.iter().map(|taken| taken.load(Ordering::Relaxed)).sum()
    }
}

impl OrgUse {
    /// Counts bytes of an answer that wait to be written.
    pub(super) fn hold_unwritten(&self, bytes: u64) {
        self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The same bytes have been written.
    pub(super) fn release_unwritten(&self, bytes: u64) {
        self.unwritten_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The bytes of one request that has not arrived as a whole, counted until it
/// is dropped.
pub(super) struct UnfinishedBytes {
    concurrency: Arc<Concurrency>,
    org: Option<Arc<OrgUse>>,
    bytes: u64,
}

impl UnfinishedBytes {
    pub(super) const fn new(concurrency: Arc<Concurrency>, org: Option<Arc<OrgUse>>) -> Self {
        Self { concurrency, org, bytes: 0 }
    }

    /// So many bytes of it are here now.
    ///
    /// # Errors
    /// `Exhausted` when too many bytes of unfinished requests are here already,
    /// of all callers or of the same organization.
    pub(super) fn set(&mut self, bytes: u64) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.subtract(before - bytes);
            return Ok(());
        }
        let more = bytes - before;
        let Concurrency { unfinished_bytes, unfinished_bytes_max, org_unfinished_bytes_max, .. } = &*self.concurrency;
        let of_all = unfinished_bytes.fetch_add(more, Ordering::Relaxed) + more;
        let of_org = self.org.as_ref().map_or(0, |org| org.unfinished_bytes.fetch_add(more, Ordering::Relaxed) + more);
        if of_all > *unfinished_bytes_max || of_org > *org_unfinished_bytes_max {
            return Err(Error::exhausted("too many bytes of requests that have not arrived as a whole", RETRY_AFTER));
        }
        Ok(())
    }

    fn subtract(&self, bytes: u64) {
        self.concurrency.unfinished_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(org) = &self.org {
            org.unfinished_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Drop for UnfinishedBytes {
    fn drop(&mut self) {
        self.subtract(self.bytes);
    }
}

/// Health checks under way. A new one is never refused: where there are too
/// many, the oldest has to go, since an honest one ends within milliseconds.
#[derive(Default)]
pub(super) struct HealthChecks(Arc<Mutex<Checks>>);

#[derive(Default)]
struct Checks {
    next_id: u64,
    under_way: VecDeque<(u64, CancellationToken)>,
}

/// A health check's place, until it is dropped.
pub(super) struct HealthCheck {
    checks: Arc<Mutex<Checks>>,
    id: u64,
    evicted: CancellationToken,
}

impl HealthChecks {
    /// A place for one more.
    pub(super) fn enter(&self) -> HealthCheck {
        let evicted = CancellationToken::new();
        let mut checks = self.0.lock();
        if checks.under_way.len() >= HEALTH_CHECKS_MAX
            && let Some((_, oldest)) = checks.under_way.pop_front()
        {
            oldest.cancel();
        }
        let id = checks.next_id;
        checks.next_id += 1;
        checks.under_way.push_back((id, evicted.clone()));
        HealthCheck { checks: Arc::clone(&self.0), id, evicted }
    }
}

impl HealthCheck {
    /// Returns when it has to go.
    pub(super) async fn evicted(&self) -> Error {
        self.evicted.cancelled().await;
        Error::exhausted("too many health checks at a time", RETRY_AFTER)
    }
}

impl Drop for HealthCheck {
    fn drop(&mut self) {
        self.checks.lock().under_way.retain(|(id, _)| *id != self.id);
    }
}

/// A call's place among those that are served, until it is dropped.
pub(super) struct Permit {
    concurrency: Arc<Concurrency>,
    connection: Arc<ConnectionUse>,
    org: Option<Arc<OrgUse>>,
    class: Class,
}

impl Permit {
    /// Of which class it is.
    pub(super) const fn class(&self) -> Class {
        self.class
    }

    /// The organization whose call it is.
    pub(super) const fn org(&self) -> Option<&Arc<OrgUse>> {
        self.org.as_ref()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let class = self.class as usize;
        self.concurrency.taken[class].fetch_sub(1, Ordering::Relaxed);
        self.connection.permits[class].fetch_sub(1, Ordering::Relaxed);
        if let Some(org) = &self.org {
            org.permits[class].fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn concurrency() -> (Arc<Concurrency>, Arc<ConnectionUse>) {
        let config = Config {
            auth_jwks_file: "keys".to_owned(),
            requests_in_flight_max: 8,
            streams_max: 40,
            streams_per_connection_max: 3,
            request_bytes_in_flight_max: 100,
            ..Config::default()
        };
        (Concurrency::new(&config), Arc::default())
    }

    #[test]
    fn each_class_has_limits_of_its_own_and_an_organization_a_share() {
        let (concurrency, connection) = concurrency();
        let uses = OrgUses::default();
        let (acme, beta) = (uses.of(&org("acme")), uses.of(&org("beta")));
        let take = |class, org, count: usize| -> Vec<Permit> {
            (0..count).map_while(|_| concurrency.enter(class, &connection, org).ok()).collect()
        };
        let of_acme = take(Class::Call, Some(&acme), 9);
        assert_eq!(of_acme.len(), 2, "a quarter of 8");
        assert_eq!(take(Class::Call, Some(&beta), 9).len(), 2);
        let streams = take(Class::Stream, Some(&beta), 9);
        assert_eq!(streams.len(), 3, "on one connection");
        assert_eq!(take(Class::Probe, None, 9).len(), PROBES_PER_CONNECTION_MAX);
        assert_eq!(take(Class::Open, None, 99).len(), OPEN_CALLS_PER_CONNECTION_MAX);
        assert_eq!(concurrency.in_flight(), 5);
        drop((of_acme, streams));
        assert_eq!(concurrency.in_flight(), 0);
        assert!(concurrency.enter(Class::Call, &connection, Some(&acme)).is_ok());
    }

    #[test]
    fn bytes_of_unfinished_requests_are_bounded_and_given_back() {
        let (concurrency, _) = concurrency();
        let acme = Arc::new(OrgUse::default());
        let mut of_acme = UnfinishedBytes::new(Arc::clone(&concurrency), Some(Arc::clone(&acme)));
        assert!(of_acme.set(50).is_ok());
        let mut second = UnfinishedBytes::new(Arc::clone(&concurrency), Some(acme));
        assert!(second.set(1).is_err(), "its half is taken");
        drop(second);
        let mut of_beta = UnfinishedBytes::new(Arc::clone(&concurrency), Some(Arc::default()));
        assert!(of_beta.set(50).is_ok());
        let mut of_third = UnfinishedBytes::new(Arc::clone(&concurrency), Some(Arc::default()));
        assert!(of_third.set(1).is_err());
        assert!(of_acme.set(0).is_ok() && of_third.set(50).is_ok());
        drop((of_acme, of_beta, of_third));
        assert_eq!(concurrency.unfinished_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_new_health_check_takes_the_place_of_the_oldest() {
        let checks = HealthChecks::default();
        let mut held: VecDeque<HealthCheck> = (0..HEALTH_CHECKS_MAX).map(|_| checks.enter()).collect();
        drop(held.remove(1));
        let newest = checks.enter();
        assert!(held.iter().all(|check| check.evicted().now_or_never().is_none()), "one had ended");
        let another = checks.enter();
        assert!(held[0].evicted().now_or_never().is_some());
        assert!(held.iter().skip(1).chain([&newest, &another]).all(|check| check.evicted().now_or_never().is_none()));
        drop((held, newest, another));
        assert!(checks.0.lock().under_way.is_empty());
    }

    #[test]
    fn organizations_without_callers_are_forgotten() {
        let uses = OrgUses::default();
        let kept = uses.of(&org("kept"));
        for n in 0..2 * ORGS_BEFORE_SWEEP {
            uses.of(&org(&format!("org-{n}")));
        }
        assert!(uses.0.lock().len() <= ORGS_BEFORE_SWEEP);
        assert!(Arc::ptr_eq(&kept, &uses.of(&org("kept"))));
    }

    fn org(name: &str) -> OrgId {
        OrgId::parse(name).unwrap()
    }
}
