//! How the service is, for probes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::failure::{ErrorBody, Failure};
use crate::audit::StatusReport;
use crate::domain::HourResult;
use crate::transport::rfc3339;
use crate::transport::serving::{Serving, stopping};

/// The process runs.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Is the process alive?
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "Service",
    responses((status = 200, description = "It is.", body = Alive)),
)]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// The service takes events.
#[derive(Serialize, ToSchema)]
pub(super) struct Ready {
    /// `ready`, or `degraded` when ClickHouse is away or has refused segments: events are still taken and kept, but
    /// not all of them are counted yet.
    #[schema(example = "ready")]
    status: &'static str,
    /// Whether ClickHouse answers: `up` or `away`.
    #[schema(example = "up")]
    clickhouse: &'static str,
    /// What of the log is not in ClickHouse yet.
    segments: Waiting,
    /// What the audit of the rollups has found.
    audit: Audited,
}

/// What the audit of the rollups has found since the service started. Differences do not make the service unready.
#[derive(Serialize, ToSchema)]
struct Audited {
    /// When the background audit last looked at an hour.
    #[schema(example = "2026-02-10T21:00:00Z")]
    last_audit_at: Option<String>,
    /// Hours that it has looked at.
    hours: u64,
    /// Hours that were repaired.
    repaired: u64,
    /// Hours of organisations in which a rollup is wrong.
    different: u64,
    /// Hours of organisations that could not be judged yet.
    undecided: u64,
    /// Why the background audit could not look at its last hour. Empty: it could.
    last_error: &'static str,
}

impl From<StatusReport> for Audited {
    fn from(report: StatusReport) -> Self {
        let different = report.count(HourResult::Different);
        Self {
            last_audit_at: report.last_at.map(rfc3339::write),
            hours: report.hours,
            repaired: report.repaired,
            different,
            undecided: report.open.len() as u64 - different,
            last_error: report.last_error,
        }
    }
}

/// What of the log is not in ClickHouse yet.
#[derive(Serialize, ToSchema)]
struct Waiting {
    /// Segments that wait to be inserted.
    waiting: usize,
    /// Segments that ClickHouse refused, and that are retried by command.
    parked: usize,
    /// Events in all segments.
    rows: u64,
}

/// Does the service take events?
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "Service",
    responses(
        (status = 200, description = "It does.", body = Ready),
        (status = 503, description = "It is stopping: `UNAVAILABLE`.", body = ErrorBody,
            headers(("Retry-After" = u64, description = "Seconds to wait."))),
    ),
)]
pub(super) async fn ready(State(serving): State<Arc<Serving>>) -> Result<Json<Ready>, Failure> {
    if serving.drain.has_begun() {
        return Err(stopping().into());
    }
    let segments = serving.app.log.segments();
    let segments = Waiting { waiting: segments.backlog(), parked: segments.parked(), rows: segments.rows() };
    let audit = serving.app.auditor.status().report().into();
    let is_up = *serving.app.clickhouse_up.borrow();
    let status = if is_up && segments.parked == 0 { "ready" } else { "degraded" };
    Ok(Json(Ready { status, clickhouse: if is_up { "up" } else { "away" }, segments, audit }))
}
