//! `AuditService`: audits on demand.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, unfold};
use tonic::{Request, Response, Status};

use super::convert;
use crate::audit::{Audit, RepairRequest};
use crate::domain::{
    AuditedHour, Difference, Differences, Error, HourResult, MILLIS_PER_HOUR, RecordedRepair, RepairState, Rollup,
    Window,
};
use crate::transport::context::{StreamPermit, TransportContext, stopping};
use crate::transport::error::status;
use crate::transport::proto;
use crate::transport::proto::audit_response::Step;
use crate::transport::proto::audit_service_server::AuditService;
use crate::transport::proto::{
    AuditRequest, AuditResponse, GetAuditStatusRequest, GetAuditStatusResponse, ListRepairsRequest,
    ListRepairsResponse, UndoRepairRequest, UndoRepairResponse,
};

/// Implements `AuditService`: audits hours, reports the background audit, lists repairs and undoes
/// one. Requires the scope `admin`.
pub(super) struct Audits {
    context: Arc<TransportContext>,
}

impl Audits {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl AuditService for Audits {
    type AuditStream = BoxStream<'static, Result<AuditResponse, Status>>;

    async fn audit(&self, request: Request<AuditRequest>) -> Result<Response<Self::AuditStream>, Status> {
        let context = &self.context;
        let caller = super::caller(&request)?;
        let place = context.begin_stream(&request, &caller).map_err(status::of)?;
        let AuditRequest { window, repair, unproven_removals_max } = request.into_inner();
        let repair = RepairRequest { repair, unproven_removals_max };
        let window = read_window(window.as_ref()).map_err(status::of)?;
        let audit = context.app.auditor.begin(&caller.org_id, window, repair).map_err(status::of)?;
        let end = Box::pin(context.drain.end_of_stream());
        let expired = Box::pin(caller.expired());
        let running = Running { summary: summary(audit.window()), audit, end, expired, _place: place };
        let steps = unfold(Some(running), |running| async move {
            let mut running = running?;
            Some(match running.next().await {
                Some(Ok(hour)) => (Ok(step(Step::Hour(hour))), Some(running)),
                Some(Err(error)) => (Err(status::of(error)), None),
                None => (Ok(step(Step::Summary(running.summary))), None),
            })
        });
        Ok(Response::new(steps.boxed()))
    }

    async fn list_repairs(
        &self,
        request: Request<ListRepairsRequest>,
    ) -> Result<Response<ListRepairsResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let window = read_window(request.into_inner().window.as_ref()).map_err(status::of)?;
        let repairs = self.context.app.auditor.repairs(&org_id, window).await.map_err(status::of)?;
        Ok(Response::new(ListRepairsResponse { repairs: repairs.into_iter().map(repair).collect() }))
    }

    async fn undo_repair(&self, request: Request<UndoRepairRequest>) -> Result<Response<UndoRepairResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let UndoRepairRequest { repair_id } = request.into_inner();
        if repair_id.is_empty() {
            return Err(status::of(Error::invalid_field("repair_id", "is required")));
        }
        let auditor = Arc::clone(&self.context.app.auditor);
        // By itself, so that it is not broken off when nobody waits.
        let undone = tokio::spawn(async move { auditor.undo(&org_id, &repair_id).await }).await;
        let undone = undone.unwrap_or_else(|error| {
            tracing::error!(%error, "the task that undoes a repair failed");
            Err(Error::internal())
        });
        Ok(Response::new(UndoRepairResponse { repair: Some(repair(undone.map_err(status::of)?)) }))
    }

    async fn get_audit_status(
        &self,
        request: Request<GetAuditStatusRequest>,
    ) -> Result<Response<GetAuditStatusResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let report = self.context.app.auditor.status().report();
        let hours = |is_wanted: fn(HourResult) -> bool| {
            let found = report.open.iter().filter(|((_, org), result)| org == org_id.as_str() && is_wanted(**result));
            found.map(|((hour, _), _)| convert::time(*hour)).collect()
        };
        Ok(Response::new(GetAuditStatusResponse {
            last_audit_at: report.last_at.map(convert::time),
            last_hour: report.last_hour.map(convert::time),
            hours: report.hours,
            different: hours(|result| result == HourResult::Different),
            undecided: hours(|result| matches!(result, HourResult::InFlight | HourResult::Undetermined)),
            last_error: report.last_error.to_owned(),
            events_missing: hours(|result| result == HourResult::EventsMissing),
            left_out: report.left_out,
            due: report.due,
        }))
    }
}

/// One audit's stream.
struct Running {
    audit: Audit,
    summary: proto::AuditSummary,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    expired: Pin<Box<dyn Future<Output = Error> + Send>>,
    _place: StreamPermit,
}

impl Running {
    /// The next hour; none after the last.
    async fn next(&mut self) -> Option<Result<proto::AuditedHour, Error>> {
        let audited = tokio::select! {
            () = &mut self.end => return Some(Err(stopping())),
            error = &mut self.expired => return Some(Err(error)),
            audited = self.audit.next() => audited?,
        };
        Some(audited.map(|audited| {
            let mut hour = hour(audited);
            let summary = &mut self.summary;
            summary.hours += 1;
            summary.ids += hour.ids;
            *match hour.result() {
                proto::HourResult::Unspecified | proto::HourResult::Consistent => &mut summary.consistent,
                proto::HourResult::Repaired => &mut summary.repaired,
                proto::HourResult::Different => &mut summary.different,
                proto::HourResult::InFlight => &mut summary.in_flight,
                proto::HourResult::Undetermined => &mut summary.undetermined,
                proto::HourResult::EventsMissing => &mut summary.events_missing,
                proto::HourResult::Expired => &mut summary.expired,
            } += 1;
            hour.hours_done = summary.hours;
            hour.hours_total = u32::try_from(self.audit.window().buckets(MILLIS_PER_HOUR)).unwrap_or(u32::MAX);
            hour
        }))
    }
}

fn read_window(window: Option<&proto::Window>) -> Result<Option<Window>, Error> {
    if window.is_none() {
        return Ok(None);
    }
    let mut errors = Vec::new();
    match convert::window(window, &mut errors) {
        Some(window) => Ok(Some(window)),
        None => Err(Error::invalid(errors)),
    }
}

const fn step(step: Step) -> AuditResponse {
    AuditResponse { step: Some(step) }
}

fn summary(window: Window) -> proto::AuditSummary {
    proto::AuditSummary { window: convert::window_answered(window), ..Default::default() }
}

/// An hour of one organization.
fn hour(audited: AuditedHour) -> proto::AuditedHour {
    let mut hour = proto::AuditedHour {
        hour: Some(convert::time(audited.hour)),
        ids: audited.ids,
        result: proto::HourResult::Consistent.into(),
        ..Default::default()
    };
    for finding in audited.findings {
        hour.result = result(finding.result).into();
        finding.reason.clone_into(&mut hour.reason);
        (hour.rows, hour.ids) = (finding.rows, hour.ids.max(finding.ids));
        hour.found = finding.found.into_iter().map(differences).collect();
        hour.left = finding.left.into_iter().map(differences).collect();
    }
    hour
}

const fn result(result: HourResult) -> proto::HourResult {
    match result {
        HourResult::Consistent => proto::HourResult::Consistent,
        HourResult::Repaired => proto::HourResult::Repaired,
        HourResult::Different => proto::HourResult::Different,
        HourResult::InFlight => proto::HourResult::InFlight,
        HourResult::Undetermined => proto::HourResult::Undetermined,
        HourResult::EventsMissing => proto::HourResult::EventsMissing,
        HourResult::Expired => proto::HourResult::Expired,
    }
}

const fn rollup(rollup: Rollup) -> proto::Rollup {
    match rollup {
        Rollup::CampaignMinutes => proto::Rollup::CampaignMinutes,
        Rollup::TypeHours => proto::Rollup::TypeHours,
        Rollup::UserDays => proto::Rollup::UserDays,
        Rollup::UserMinutes => proto::Rollup::UserMinutes,
    }
}

fn repair(repair: RecordedRepair) -> proto::Repair {
    let state = match repair.state {
        RepairState::Begun => proto::RepairState::Begun,
        RepairState::Done => proto::RepairState::Done,
        RepairState::Undone => proto::RepairState::Undone,
        RepairState::Closed => proto::RepairState::Closed,
    };
    proto::Repair {
        id: repair.id,
        hour: Some(convert::time(repair.hour)),
        rollup: rollup(repair.rollup).into(),
        state: state.into(),
        at: Some(convert::time(repair.at)),
        keys: repair.keys,
        added: repair.added,
        taken: repair.taken,
        author: repair.author,
        undoes: repair.undoes,
    }
}

fn differences(differences: Differences) -> proto::RollupDifferences {
    let Differences { rollup: of, keys, under, over, unproven, listed } = differences;
    let differences = listed.into_iter().map(difference).collect();
    proto::RollupDifferences { rollup: rollup(of).into(), keys, under, over, differences, unproven }
}

fn difference(difference: Difference) -> proto::KeyDifference {
    let Difference { key, expected, actual, .. } = difference;
    proto::KeyDifference {
        bucket: Some(convert::time(key.bucket)),
        campaign_id: key.campaign_id,
        user_id: key.user_id,
        r#type: key.event_type,
        expected,
        actual,
    }
}
