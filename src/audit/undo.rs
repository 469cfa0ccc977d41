//! Lists the record of repairs, and undoes a repair.

use std::time::Duration;

use super::{Auditor, auditable};
use crate::clickhouse::audit::{Repair, RepairKind, RepairRecord, opposite};
use crate::clickhouse::error::QueryError;
use crate::domain::{AuditAuthor, Error, OrgId, RecordedRepair, RepairState, Window};
use crate::fairness::Tenant;

/// How long an undo with an unknown result can be repeated, in milliseconds. Its token is
/// remembered for longer.
const AGAIN_MILLIS_MAX: i64 = 60 * 60 * 1_000;
/// How long a caller is told to wait before it repeats one.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Auditor {
    /// The repairs of an organization in a window, or in the last 24 full hours; the newest first.
    ///
    /// # Errors
    /// `Invalid` for a window as in [`Auditor::begin`]; when ClickHouse does not
    /// answer.
    pub async fn repairs(&self, org_id: &OrgId, window: Option<Window>) -> Result<Vec<RecordedRepair>, Error> {
        let window = auditable(window, self.clock.now())?;
        let list = async |ticket| self.store.recorded(org_id.as_str(), window, &ticket).await;
        self.limiter.run(org_id, list).await
    }

    /// Undoes a repair of an organization by reverting every change. Returns the new repair that
    /// does so.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if the repair is not known to be in the rollup; `Unavailable` if it
    /// is unknown whether it was undone.
    pub async fn undo(&self, org_id: &OrgId, repair_id: &str) -> Result<RecordedRepair, Error> {
        let turn = self.hours.acquire(&Tenant::from(org_id), 1).await;
        let _turn = turn.map_err(|_| Error::from(QueryError::QueueFull))?;
        let recorded = self.recorded_with_undo(org_id, repair_id).await?;
        let repair = recorded.iter().find(|repair| repair.id == repair_id);
        let repair = repair.ok_or_else(|| Error::not_found("there is no such repair"))?;
        self.check_can_be_undone(repair, recorded.iter().find(|other| other.undoes == repair.id))?;
        let read = async |ticket| self.store.recorded_keys(org_id.as_str(), repair, &ticket).await;
        let changes = self.limiter.run(org_id, read).await?;
        let sums = changes.iter().fold((0, 0), |(added, taken), (_, change)| {
            let size = change.unsigned_abs();
            if *change > 0 { (added + size, taken) } else { (added, taken + size) }
        });
        if (changes.len() as u64, sums) != (repair.keys, (repair.added, repair.taken)) {
            // Of a version that did not record them.
            return Err(Error::conflict("the record does not say which counts the repair changed"));
        }
        let differences = opposite(changes);
        let kind = RepairKind::Undo { repair_id };
        let undo = Repair {
            org_id: org_id.as_str(),
            hour: repair.hour,
            rollup: repair.rollup,
            differences: &differences,
            kind,
        };
        self.make_undo(undo, repair).await?;
        let recorded = self.recorded_with_undo(org_id, repair_id).await?;
        recorded.into_iter().find(|other| other.undoes == repair_id).ok_or_else(Error::internal)
    }

    async fn recorded_with_undo(&self, org_id: &OrgId, repair_id: &str) -> Result<Vec<RecordedRepair>, Error> {
        let read = async |ticket| self.store.recorded_with_undo(org_id.as_str(), repair_id, &ticket).await;
        self.limiter.run(org_id, read).await
    }

    fn check_can_be_undone(&self, repair: &RecordedRepair, undo: Option<&RecordedRepair>) -> Result<(), Error> {
        match (repair.state, undo) {
            (RepairState::Undone, _) | (_, Some(RecordedRepair { state: RepairState::Done, .. })) => {
                Err(Error::conflict("the repair was taken back before"))
            }
            (RepairState::Begun | RepairState::Closed, _) => {
                Err(Error::conflict("it is not known whether the repair was made"))
            }
            (RepairState::Done, Some(undo)) if undo.at.plus_millis(AGAIN_MILLIS_MAX) < self.clock.now() => {
                Err(Error::conflict("it is not known whether the repair was taken back before"))
            }
            (RepairState::Done, _) => Ok(()),
        }
    }

    async fn make_undo(&self, undo: Repair<'_>, repair: &RecordedRepair) -> Result<(), Error> {
        let author = AuditAuthor::Command;
        let record = |state| RepairRecord { repair: undo, state, author, at_micros: self.clock.order_micros() };
        self.store.record(record(RepairState::Begun)).await?;
        self.store.record_keys(undo).await?;
        if let Err(error) = self.apply(undo).await {
            tracing::warn!(%error, repair = repair.id, "it is unknown whether a repair was undone");
            let message = "it is unknown whether the repair was undone; call again";
            return Err(Error::unavailable(message, RETRY_AFTER));
        }
        self.store.record(record(RepairState::Done)).await?;
        self.store.record_undone(undo.org_id, repair, self.clock.order_micros()).await?;
        let (added, taken) = undo.added_and_taken();
        tracing::info!(org_id = undo.org_id, repair = repair.id, added, taken, "a repair was undone");
        self.metrics.repaired(undo.rollup, added, taken);
        Ok(())
    }
}
