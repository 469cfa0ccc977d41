//! The audit compares the rollups with the events, and repairs the rollups.
//!
//! The reference is the raw table with the first row of each id. For each organization and hour, its
//! checksums are compared with those of every rollup. Where they differ, the audit finds the exact keys
//! and repairs them by inserting the difference. A repair adds missing counts and removes counts that
//! were added twice; `proof` decides which removals are proven. Other surplus counts may belong to
//! events that have been lost. `undo` reverts a repair.
//!
//! A difference is final only if nothing was written into the hour between the first and the last
//! reading, and no segment of this service is partly inserted into it. `resolve` ensures this and
//! explains why it is sufficient. `in_flight` knows the service's own segments; `background` audits
//! hours without a command.

mod background;
mod in_flight;
mod proof;
mod reading;
mod resolve;
mod schedule;
mod status;
mod undo;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use status::{AuditStatus, StatusReport};

use crate::clickhouse::audit::{AuditStore, Effort, HourScope};
use crate::clickhouse::error::QueryError;
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clickhouse::ticket::QueryTicket;
use crate::clock::ArrivalClock;
use crate::domain::{
    AuditAuthor, AuditedHour, Error, HourFinding, HourResult, MILLIS_PER_HOUR, OrgId, Rollup, Timestamp, Window,
};
use crate::event_store::insert_gate::InsertGate;
use crate::fairness::{FairPermit, FairSemaphore, Shares, Tenant};
use crate::hour_versions::HourVersions;
use crate::log::Segments;
use crate::retention::Retention;
use crate::telemetry::Metrics;
use in_flight::InFlight;
use reading::Reading;

/// Most hours of one audit by command: a leap year.
pub const HOURS_MAX: i64 = 366 * 24;
/// Hours of an audit without a window.
const HOURS_DEFAULT: i64 = 24;
/// Audits by command at a time, one of each organization. They take turns, hour
/// by hour.
const AUDITS_MAX: u64 = 64;
/// The `retry_after` while another audit runs.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The settings of the audit. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct AuditSettings {
    /// Longest time to read an hour.
    pub wait_max: Duration,
    /// Longest time that the service's own inserts are held up for an hour.
    pub hold_max: Duration,
    /// Time between the end of an hour and its background audit.
    pub after: Duration,
    /// The background's pause between two hours.
    pub pause: Duration,
    /// Number of recent hours that the background audits after a start.
    pub hours: u32,
    /// Whether the background repairs what it finds.
    pub repair: bool,
}

/// Audits and repairs hours, on behalf of callers and of the background task. On demand, one audit
/// of an organization runs at a time.
pub struct Auditor {
    settings: AuditSettings,
    store: AuditStore,
    limiter: Arc<QueryLimiter>,
    in_flight: InFlight,
    hour_versions: Arc<HourVersions>,
    retention: Arc<Retention>,
    clock: Arc<ArrivalClock>,
    metrics: Arc<Metrics>,
    status: AuditStatus,
    /// Limits commands to one for each organization.
    commands: Arc<FairSemaphore>,
    /// Limits audits to one hour at a time, in turns.
    hours: Arc<FairSemaphore>,
}

/// The parameters of auditing an hour.
#[derive(Clone, Debug)]
struct HourRequest {
    /// None: all organizations.
    org_id: Option<String>,
    hour: Timestamp,
    repair: bool,
    /// Counts that a repair can remove from a rollup without proof of double counting.
    unproven_removals_max: u64,
    author: AuditAuthor,
}

impl HourRequest {
    /// The tenant that it is made for.
    fn tenant(&self) -> Tenant {
        self.org_id.as_deref().and_then(OrgId::parse).map_or(Tenant::Service, Tenant::Organization)
    }
}

impl Auditor {
    /// Creates an auditor for this store.
    #[expect(clippy::too_many_arguments, reason = "every part is another")]
    pub fn new(
        settings: AuditSettings,
        store: AuditStore,
        limiter: Arc<QueryLimiter>,
        gate: Arc<InsertGate>,
        segments: Arc<Segments>,
        hour_versions: Arc<HourVersions>,
        retention: Arc<Retention>,
        clock: Arc<ArrivalClock>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            store,
            limiter,
            in_flight: InFlight::new(gate, segments),
            hour_versions,
            retention,
            clock,
            metrics,
            status: AuditStatus::default(),
            commands: FairSemaphore::new(Shares::one_each(AUDITS_MAX)),
            hours: FairSemaphore::new(Shares::one_each(1)),
        })
    }

    /// The findings so far.
    pub const fn status(&self) -> &AuditStatus {
        &self.status
    }

    /// Begins an audit of an organization for a window, extended to whole hours, or for the last 24
    /// full hours.
    ///
    /// # Errors
    /// `Invalid` for a window that is too long or cannot be audited; `Exhausted` while another
    /// audit of the organization runs.
    pub fn begin(
        self: &Arc<Self>,
        org_id: &OrgId,
        window: Option<Window>,
        repair: RepairRequest,
    ) -> Result<Audit, Error> {
        let window = auditable(window, self.clock.now())?;
        let busy = || Error::exhausted("another audit of this organization is running", RETRY_AFTER);
        let permit = self.commands.try_acquire(&Tenant::from(org_id), 1).ok_or_else(busy)?;
        Ok(Audit {
            auditor: Arc::clone(self),
            org_id: org_id.as_str().to_owned(),
            window,
            next: window.from(),
            repair,
            permit: Arc::new(permit),
        })
    }

    /// Audits one hour.
    async fn audit_hour(&self, request: HourRequest) -> Result<AuditedHour, QueryError> {
        let tenant = request.tenant();
        let _turn = self.hours.acquire(&tenant, 1).await.map_err(|_| QueryError::QueueFull)?;
        if self.retention.deleted().overlaps(&schedule::period(request.hour)) {
            return Ok(without_reading(&request, HourResult::Expired, resolve::EXPIRED));
        }
        let running = self.limiter.begin(&tenant, self.settings.wait_max).await?;
        let audited = self.audit_hour_under(&request, running.ticket()).await?;
        running.finish();
        Ok(audited)
    }

    /// Audits one hour under a ticket for its queries.
    async fn audit_hour_under(&self, request: &HourRequest, ticket: &QueryTicket) -> Result<AuditedHour, QueryError> {
        let scope = HourScope { org_id: request.org_id.as_deref(), hour: request.hour };
        let effort = self.effort(request.author, ticket);
        let looked = tokio::time::timeout(self.settings.wait_max, self.look(scope, effort)).await;
        let audited = match looked {
            Ok(readings) => self.judge(request, ticket, readings?).await?,
            Err(_) => without_reading(request, HourResult::Undetermined, TOOK_TOO_LONG),
        };
        self.status.audited(&audited, request.author, self.clock.now());
        self.metrics.audited(&audited, self.clock.now());
        Ok(audited)
    }

    /// Resolves organizations whose hour seems inconsistent.
    async fn judge(
        &self,
        request: &HourRequest,
        ticket: &QueryTicket,
        mut readings: BTreeMap<String, Reading>,
    ) -> Result<AuditedHour, QueryError> {
        let scope = HourScope { org_id: request.org_id.as_deref(), hour: request.hour };
        let unfinished = self.store.open_repairs(scope, self.effort(request.author, ticket)).await?;
        unfinished.iter().for_each(|org_id| _ = readings.entry(org_id.clone()).or_default());
        let mut audited = AuditedHour { organizations: readings.len() as u64, ..nothing(request.hour) };
        for (org_id, reading) in readings {
            audited.ids += reading.ids();
            let scope = HourScope { org_id: Some(&org_id), hour: request.hour };
            let is_equal = reading.differing(second(request.hour)).is_empty() && !unfinished.contains(&org_id);
            if is_equal && !self.in_flight.touches(scope).await {
                continue;
            }
            let finding = self.resolve(scope, request, ticket).await?;
            if finding.result != HourResult::Consistent {
                audited.findings.push(finding);
            }
        }
        Ok(audited)
    }

    /// Reads an hour's sums, by organization.
    async fn look(&self, scope: HourScope<'_>, effort: Effort<'_>) -> Result<BTreeMap<String, Reading>, QueryError> {
        let mut readings: BTreeMap<String, Reading> = BTreeMap::new();
        for ((org_id, minute), sums) in self.store.event_sums(scope, effort).await? {
            readings.entry(org_id).or_default().events.insert(minute, sums);
        }
        for (place, rollup) in Rollup::ALL.into_iter().enumerate() {
            for ((org_id, bucket), sum) in self.store.rollup_sums(rollup, scope, effort).await? {
                readings.entry(org_id).or_default().rollups[place].insert(bucket, sum);
            }
        }
        Ok(readings)
    }

    const fn effort<'a>(&self, author: AuditAuthor, ticket: &'a QueryTicket) -> Effort<'a> {
        let threads = match author {
            AuditAuthor::Background => 1,
            AuditAuthor::Command => 0,
        };
        Effort { threads, wait_max: self.settings.wait_max, ticket }
    }
}

/// What an audit by command is allowed to change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairRequest {
    /// Whether to add missing counts, and to remove counts that are proven to be double.
    pub repair: bool,
    /// How many counts can be removed without proof, over all hours.
    pub unproven_removals_max: u64,
}

/// An audit by command, hour by hour. Dropping it ends it after the current hour.
pub struct Audit {
    auditor: Arc<Auditor>,
    org_id: String,
    window: Window,
    next: Timestamp,
    repair: RepairRequest,
    permit: Arc<FairPermit>,
}

impl Audit {
    /// The window, in whole hours.
    pub const fn window(&self) -> Window {
        self.window
    }

    /// Audits the next hour; none after the last.
    ///
    /// # Errors
    /// If ClickHouse does not answer.
    pub async fn next(&mut self) -> Option<Result<AuditedHour, Error>> {
        let hour = self.next;
        if hour >= self.window.to() {
            return None;
        }
        let (auditor, permit) = (Arc::clone(&self.auditor), Arc::clone(&self.permit));
        let RepairRequest { repair, unproven_removals_max } = self.repair;
        let (org_id, author) = (Some(self.org_id.clone()), AuditAuthor::Command);
        let request = HourRequest { org_id, hour, repair, unproven_removals_max, author };
        // By itself, so that a repair is not broken off when nobody waits.
        let audited = tokio::spawn(async move {
            let audited = auditor.audit_hour(request).await;
            drop(permit);
            audited
        });
        self.next = hour.plus_millis(MILLIS_PER_HOUR);
        Some(match audited.await {
            Ok(Ok(audited)) => {
                let left = &mut self.repair.unproven_removals_max;
                *left = left.saturating_sub(unproven_removed(&audited));
                Ok(audited)
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "an audit failed");
                Err(error.into())
            }
            Err(error) => {
                tracing::error!(%error, "an audit task failed");
                Err(Error::internal())
            }
        })
    }
}

/// The whole hours to audit.
fn auditable(window: Option<Window>, now: Timestamp) -> Result<Window, Error> {
    let this_hour = now.floor_to(MILLIS_PER_HOUR);
    let asked = match window {
        Some(window) => window.outwards_to(MILLIS_PER_HOUR),
        None => Window::new(this_hour.plus_millis(-HOURS_DEFAULT * MILLIS_PER_HOUR), this_hour)?,
    };
    let from = asked.from().max(Timestamp::from_millis(0));
    // Events may be a little ahead of the clock.
    let to = asked.to().min(this_hour.plus_millis(2 * MILLIS_PER_HOUR));
    let window = Window::new(from, to)
        .map_err(|_| Error::invalid_field("window", "must not lie before 1970, nor in the future"))?;
    let hours = window.buckets(MILLIS_PER_HOUR);
    if hours > HOURS_MAX {
        return Err(Error::invalid_field("window", format!("has {hours} hours; at most {HOURS_MAX} are allowed")));
    }
    Ok(window)
}

/// How many counts a repair removed without proof, in the rollup with the most of them.
fn unproven_removed(audited: &AuditedHour) -> u64 {
    let most = |finding: &HourFinding| finding.found.iter().map(|found| found.unproven).max().unwrap_or_default();
    let repaired = audited.findings.iter().filter(|finding| finding.result == HourResult::Repaired);
    repaired.map(most).sum()
}

const fn nothing(hour: Timestamp) -> AuditedHour {
    AuditedHour { hour, ids: 0, organizations: 0, findings: Vec::new() }
}

const TOOK_TOO_LONG: &str = "it took longer to read than audit_wait_ms_max";

/// The result when nothing could be read: for the named organization, or for all.
fn without_reading(request: &HourRequest, result: HourResult, reason: &'static str) -> AuditedHour {
    let finding = HourFinding {
        org_id: request.org_id.clone().unwrap_or_default(),
        hour: request.hour,
        result,
        rows: 0,
        ids: 0,
        reason,
        found: Vec::new(),
        left: Vec::new(),
    };
    AuditedHour { findings: vec![finding], ..nothing(request.hour) }
}

/// Seconds since 1970.
fn second(moment: Timestamp) -> u32 {
    u32::try_from(moment.millis() / 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_millis(hour * MILLIS_PER_HOUR)
    }

    #[test]
    fn an_audit_begins_in_1970_and_ends_with_the_next_hour() {
        let now = at(1_000 * DAY).plus_millis(5);
        let check = |window: Option<(i64, i64)>, expected: Option<(i64, i64)>| {
            let window = window.map(|(from, to)| Window::new(at(from), at(to).plus_millis(-1)).unwrap());
            let audited = auditable(window, now).ok().map(|window| (window.from(), window.to()));
            assert_eq!(audited, expected.map(|(from, to)| (at(from), at(to))), "{window:?}");
        };
        let today = 1_000 * DAY;
        check(None, Some((today - 24, today)));
        check(Some((today - 3, today - 1)), Some((today - 3, today - 1)));
        check(Some((-5, 10)), Some((0, 10)));
        check(Some((today, today + 100)), Some((today, today + 2)));
        check(Some((-100, -1)), None);
        check(Some((today + 50, today + 51)), None);
    }

    #[test]
    fn an_audit_has_a_longest_window() {
        let now = at(1_000 * DAY);
        let check = |days: i64, is_allowed: bool| {
            let window = Some(Window::new(at((1_000 - days) * DAY), now).unwrap());
            assert_eq!(auditable(window, now).is_ok(), is_allowed, "{days}");
        };
        check(366, true);
        check(367, false);
    }
}
