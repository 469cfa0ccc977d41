//! Resolves one hour of one organization that seems inconsistent: reads it again until the reading is
//! final, and repairs it.
//!
//! A reading is final if the state it was made from did not change:
//!
//! 1. The sums of the rollups and a mark of the events are read, then the events, then the keys that
//!    differ.
//! 2. No segment of this service that was attempted and not confirmed touches the hour.
//! 3. Every insert that was running at that time has ended, whoever sent it.
//! 4. The sums and the mark are read again, and are the same.
//!
//! An insert that reached some of the tables before step 1 and the others after it has either ended by
//! step 4, and changed what is compared there; or it was interrupted and will be repeated, which step 2
//! detects. (An interrupted segment of another service cannot be detected. That service finds our
//! repair in the record before it repeats the segment.)
//!
//! The first attempt does not hold up the service's own inserts, which is sufficient for hours that have
//! ended. If the hour changed, the next attempt holds the gate.
//!
//! Counts that a rollup lacks are added. Surplus counts may belong to lost events, so they are removed
//! only if they are proven to be double (see [`super::proof`] and
//! `clickhouse/audit/differences.rs`), or if the caller allows it.

use std::array::from_fn;
use std::collections::BTreeMap;
use std::time::Duration;

use super::proof::{mark_proven, repairable};
use super::reading::{Buckets, Reading};
use super::schedule::period;
use super::{Auditor, HourRequest, second};
use crate::clickhouse::audit::{Effort, EventsState, HourScope, Repair, RepairKind, RepairRecord, RollupRepairs};
use crate::clickhouse::error::QueryError;
use crate::clickhouse::ticket::QueryTicket;
use crate::domain::{AuditAuthor, Differences, HourFinding, HourResult, RepairState, Rollup};
use crate::event_store::StoreError;
use crate::hour_versions::TouchedHours;

/// Attempts to get a final reading.
const ATTEMPTS_MAX: u32 = 4;
/// Successive repairs of one hour: each changes a limited number of keys, and the next one the
/// rest.
const REPAIRS_MAX: u32 = 200;
const REPAIR_KEYS_MAX: u32 = 200_000;
/// Keys that a report lists for each rollup.
const LISTED_MAX: u32 = 100;
/// Longest wait for inserts of others.
const INSERTS_WAIT_MAX: Duration = Duration::from_secs(10);
/// Pause before a reading is repeated.
const PAUSE: Duration = Duration::from_millis(200);

/// The state that must not change during a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HourState {
    events: EventsState,
    /// In the order of [`Rollup::ALL`].
    rollups: [Buckets; 4],
}

/// The result of one attempt.
enum Attempt {
    Consistent,
    /// Its events have been deleted.
    Expired,
    /// A segment of this service may be partly inserted.
    InFlight,
    /// The hour changed during the reading.
    Moved,
    Different(Vec<Differences>, &'static str),
    /// It differed, and the difference, or its first keys, have been inserted.
    Repaired(Vec<Differences>),
}

/// What is known about an hour so far.
#[derive(Default)]
struct HourProgress {
    rows: u64,
    ids: u64,
    found: Vec<Differences>,
    left: Vec<Differences>,
}

impl Auditor {
    /// Reads an hour until the reading is final, and repairs it if the request asks for that. An
    /// hour that keeps changing is reported as in flight, one that cannot be read in time as
    /// undetermined.
    ///
    /// # Errors
    /// When ClickHouse does not answer or refuses.
    pub(super) async fn resolve(
        &self,
        scope: HourScope<'_>,
        request: &HourRequest,
        ticket: &QueryTicket,
    ) -> Result<HourFinding, QueryError> {
        let mut known = HourProgress::default();
        let mut attempts = 0;
        let mut repairs = 0;
        let (result, reason) = loop {
            let holds = attempts > 0;
            let Some(attempt) = self.attempt_in_time(scope, request, ticket, holds, &mut known).await? else {
                break (HourResult::Undetermined, if holds { HOLD_TOO_SHORT } else { WAIT_TOO_SHORT });
            };
            match attempt {
                Attempt::Consistent if known.found.is_empty() => break (HourResult::Consistent, ""),
                Attempt::Consistent => break (HourResult::Repaired, ""),
                Attempt::Expired => break (HourResult::Expired, EXPIRED),
                Attempt::Different(found, reason) => {
                    let is_unproven = found.iter().any(|differences| differences.unproven > 0);
                    known.see(found);
                    break match is_unproven {
                        true => (HourResult::EventsMissing, if reason.is_empty() { EVENTS_MISSING } else { reason }),
                        false => (HourResult::Different, reason),
                    };
                }
                Attempt::Repaired(found) => {
                    known.see(found);
                    repairs += 1;
                    if repairs > REPAIRS_MAX {
                        break (HourResult::Different, REPAIRS_TOO_MANY);
                    }
                }
                // Unless it is parked, it is about to be inserted again.
                Attempt::InFlight if attempts + 1 >= ATTEMPTS_MAX => break (HourResult::InFlight, SEGMENT_ON_ITS_WAY),
                Attempt::Moved if attempts + 1 >= ATTEMPTS_MAX => break (HourResult::InFlight, OTHERS_WRITE),
                Attempt::InFlight | Attempt::Moved => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        };
        if result.is_right() {
            known.left.clear();
        }
        let HourProgress { rows, ids, found, left } = known;
        Ok(HourFinding { org_id: request_org(scope), hour: scope.hour, result, rows, ids, reason, found, left })
    }

    /// One attempt within its time limit; none after the limit.
    async fn attempt_in_time(
        &self,
        scope: HourScope<'_>,
        request: &HourRequest,
        ticket: &QueryTicket,
        holds: bool,
        known: &mut HourProgress,
    ) -> Result<Option<Attempt>, QueryError> {
        let wait_max = if holds { self.settings.hold_max } else { self.settings.wait_max };
        let effort = Effort { wait_max, ..self.effort(request.author, ticket) };
        let attempt = async {
            let _held = if holds { Some(self.in_flight.hold().await) } else { None };
            self.attempt(scope, request, effort, known).await
        };
        match tokio::time::timeout(wait_max, attempt).await {
            Ok(attempt) => attempt.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn attempt(
        &self,
        scope: HourScope<'_>,
        request: &HourRequest,
        effort: Effort<'_>,
        known: &mut HourProgress,
    ) -> Result<Attempt, QueryError> {
        if self.in_flight.touches(scope).await {
            return Ok(Attempt::InFlight); // There is no need to read.
        }
        // Before anything else is read: a repair that is done later is one of the
        // differences, and must not be taken for one that was done before.
        let before: BTreeMap<Rollup, RollupRepairs> = self.store.repairs_of(scope, effort).await?.into_iter().collect();
        let state = self.state(scope, effort).await?;
        let events = self.store.event_sums(scope, effort).await?;
        let events = events.into_iter().map(|((_, minute), sums)| (minute, sums)).collect();
        let reading = Reading { events, rollups: state.rollups.clone() };
        (known.rows, known.ids) = (state.events.rows, reading.ids());
        let differing = reading.differing(second(scope.hour));
        if self.in_flight.touches(scope).await {
            return Ok(Attempt::InFlight);
        }
        if differing.is_empty() {
            if before.values().any(|repairs| repairs.open > 0) {
                self.store.close_repairs(&request_org(scope), scope.hour).await?;
            }
            return Ok(Attempt::Consistent);
        }
        let limit = if request.repair { REPAIR_KEYS_MAX } else { LISTED_MAX };
        let mut found = Vec::new();
        for (rollup, buckets) in differing {
            let differences = self.store.differences(rollup, scope, &buckets, limit, effort).await?;
            if differences.keys == 0 {
                return Ok(Attempt::Moved);
            }
            found.push(differences);
        }
        let was_repaired = |rollup| before.get(&rollup).is_some_and(|repairs| repairs.over + repairs.open > 0);
        mark_proven(&mut found, was_repaired);
        if !self.is_unchanged(scope, &state, effort).await? {
            return Ok(Attempt::Moved);
        }
        // Not before everything is read: the events may have gone meanwhile.
        self.retention.refresh().await?;
        if self.retention.deleted().overlaps(&period(scope.hour)) {
            return Ok(Attempt::Expired);
        }
        if !request.repair {
            return Ok(Attempt::Different(found, ""));
        }
        let was_undone = |rollup: &Rollup| before.get(rollup).is_some_and(|repairs| repairs.undone > 0);
        if request.author == AuditAuthor::Background && found.iter().any(|found| was_undone(&found.rollup)) {
            return Ok(Attempt::Different(found, WAS_UNDONE));
        }
        let plan = repairable(&found, request.unproven_removals_max);
        if plan.is_empty() {
            return Ok(Attempt::Different(found, ""));
        }
        for differences in &plan {
            let over_before = before.get(&differences.rollup).map_or(0, |repairs| repairs.over);
            if !self.repair(scope, request.author, differences, over_before, &state, effort).await? {
                return Ok(Attempt::Moved);
            }
        }
        Ok(Attempt::Repaired(found))
    }

    /// Reads the state that must not change.
    async fn state(&self, scope: HourScope<'_>, effort: Effort<'_>) -> Result<HourState, QueryError> {
        let mut rollups: [Buckets; 4] = from_fn(|_| Buckets::new());
        for (sums, rollup) in rollups.iter_mut().zip(Rollup::ALL) {
            let read = self.store.rollup_sums(rollup, scope, effort).await?;
            // Rows that come to nothing may be merged away meanwhile.
            let something = read.into_iter().filter(|(_, sum)| *sum != Default::default());
            *sums = something.map(|((_, bucket), sum)| (bucket, sum)).collect();
        }
        Ok(HourState { events: self.store.events_state(scope, effort).await?, rollups })
    }

    /// Whether the state is unchanged after all running inserts have ended.
    async fn is_unchanged(
        &self,
        scope: HourScope<'_>,
        before: &HourState,
        effort: Effort<'_>,
    ) -> Result<bool, QueryError> {
        Ok(self.inserts_have_ended(effort).await? && self.state(scope, effort).await? == *before)
    }

    /// Waits until the currently running inserts have ended. Returns whether they have.
    async fn inserts_have_ended(&self, effort: Effort<'_>) -> Result<bool, QueryError> {
        // The rest of the time is for reading.
        self.store.inserts_have_ended(INSERTS_WAIT_MAX.min(effort.wait_max / 2)).await
    }

    /// Records and inserts a repair. Returns false if the hour changed in between.
    async fn repair(
        &self,
        scope: HourScope<'_>,
        author: AuditAuthor,
        differences: &Differences,
        over_before: u64,
        before: &HourState,
        effort: Effort<'_>,
    ) -> Result<bool, QueryError> {
        let org_id = request_org(scope);
        let Differences { rollup, listed, .. } = differences;
        let kind = RepairKind::Difference { over_before };
        let repair = Repair { org_id: &org_id, hour: scope.hour, rollup: *rollup, differences: listed, kind };
        let record = |state| RepairRecord { repair, state, author, at_micros: self.clock.order_micros() };
        self.store.record(record(RepairState::Begun)).await?;
        // From here on, whoever repeats a segment of before finds the record.
        // Whoever began to before has written by now, or is writing.
        let unmoved = self.inserts_have_ended(effort).await? && {
            let now = self.state(scope, effort).await?;
            let place = Rollup::ALL.iter().position(|other| other == rollup).unwrap_or_default();
            now.events == before.events && now.rollups[place] == before.rollups[place]
        };
        if !unmoved {
            return Ok(false);
        }
        self.store.record_keys(repair).await?;
        if let Err(error) = self.apply(repair).await {
            tracing::warn!(%error, rollup = rollup.as_str(), "a repair failed; it is unknown whether it was stored");
            return Ok(false);
        }
        let (added, taken) = repair.added_and_taken();
        let hour_ms = scope.hour.millis();
        tracing::info!(org_id, hour_ms, rollup = rollup.as_str(), keys = listed.len(), added, taken, "repaired");
        self.metrics.repaired(*rollup, added, taken);
        self.store.record(record(RepairState::Done)).await?;
        Ok(true)
    }

    /// Inserts a repair. After an error it may or may not be stored.
    pub(super) async fn apply(&self, repair: Repair<'_>) -> Result<(), StoreError> {
        let applied = self.store.apply(repair).await;
        // Also when it may not be there: a question too many does no harm.
        let mut touched = TouchedHours::default();
        touched.touch(repair.org_id, repair.hour);
        self.hour_versions.note_stored(touched);
        applied
    }
}

const SEGMENT_ON_ITS_WAY: &str = "a segment of this service is on its way into it";
const OTHERS_WRITE: &str = "others keep writing into it";
const EVENTS_MISSING: &str = "a rollup counts more events than are stored, and nothing shows that they were counted \
     twice: only a command that allows it takes them away";
const WAS_UNDONE: &str = "a repair of it was taken back, so only a command repairs it";
pub(super) const EXPIRED: &str = "its events have passed the retention period and are deleted; its counts are kept";
const REPAIRS_TOO_MANY: &str = "too much differs for one audit; audit it again";
const WAIT_TOO_SHORT: &str = "it took longer to read than audit_wait_ms_max";
const HOLD_TOO_SHORT: &str = "events keep coming, and it took longer to read than audit_hold_ms_max";

/// The organization of a scope, or an empty text.
fn request_org(scope: HourScope<'_>) -> String {
    scope.org_id.unwrap_or_default().to_owned()
}

impl HourProgress {
    /// Records the findings of an attempt: the first ones are the original differences, the last
    /// ones those that are left.
    fn see(&mut self, mut found: Vec<Differences>) {
        for differences in &mut found {
            differences.listed.truncate(LISTED_MAX as usize);
        }
        if self.found.is_empty() {
            self.found.clone_from(&found);
        }
        self.left = found;
    }
}
