//! Routes for probes: `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::audit::StatusReport;
use crate::clickhouse::engine::SandboxStatus;
use crate::domain::{Error, HourResult};
use crate::health::{Effect, Reason, Status};
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{ErrorInfo, Failure};
use crate::transport::rfc3339;

/// The `Retry-After` of probes, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

/// The answer of the liveness probe.
#[derive(Serialize, ToSchema)]
pub(super) struct Alive {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Liveness probe
#[utoipa::path(
    get, path = "/healthz", operation_id = "getHealth", tag = "Service",
    responses((status = 200, description = "The process runs.", body = Alive)),
)]
pub(super) async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// The state of the service. Has `error` while every event is refused.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`; `degraded` if events are accepted and something else is wrong, for example
    /// ClickHouse is unreachable or has refused segments; `refusing` if every event is refused.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why the status is not `ready`; the most serious reason first. `docs/health.md` lists the
    /// codes.
    reasons: Vec<ReadinessReason>,
    /// Whether ClickHouse answers: `up` or `away`.
    #[schema(example = "up")]
    clickhouse: &'static str,
    /// How much of the embedded ClickHouse's sandbox the kernel enforces: `full`, `partial` or
    /// `none`. Left out if ClickHouse is a separate server.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "full")]
    engine_sandbox: Option<&'static str>,
    /// The part of the log that is not in ClickHouse yet.
    segments: Waiting,
    /// The findings of the audit.
    audit: Audited,
    /// The error that callers with events receive.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// A reason why events are refused, or counted late.
#[derive(Serialize, ToSchema)]
struct ReadinessReason {
    /// A stable code for programs.
    #[schema(example = "CLICKHOUSE_AWAY")]
    code: &'static str,
    /// A readable message with current values and the setting.
    #[schema(example = "ClickHouse does not answer")]
    message: String,
    /// Whether every event is refused for this reason.
    refuses_events: bool,
}

impl From<Reason> for ReadinessReason {
    fn from(reason: Reason) -> Self {
        let refuses_events = reason.code.effect() == Effect::Refuses;
        Self { code: reason.code.as_str(), message: reason.message, refuses_events }
    }
}

/// The findings of the audit since the service started. Differences do not make the service
/// unready.
#[derive(Serialize, ToSchema)]
struct Audited {
    /// When the background audit last audited an hour.
    #[schema(example = "2026-02-10T21:00:00Z")]
    last_audit_at: Option<String>,
    /// Hours that it has audited.
    hours: u64,
    /// Hours that were repaired.
    repaired: u64,
    /// Hours of organizations in which a rollup is wrong.
    different: u64,
    /// Hours of organizations that could not be decided yet.
    undecided: u64,
    /// Hours of organizations in which a rollup counts more events than are stored, without proof
    /// that they were counted twice.
    events_missing: u64,
    /// Hours that were not right and are not counted above, because there are too many.
    left_out: u64,
    /// Hours that wait to be audited.
    due: u64,
    /// Why the background audit could not audit its last hour. Empty if it could.
    last_error: &'static str,
}

impl From<StatusReport> for Audited {
    fn from(report: StatusReport) -> Self {
        let (different, events_missing) =
            (report.count(HourResult::Different), report.count(HourResult::EventsMissing));
        Self {
            last_audit_at: report.last_at.map(rfc3339::write),
            hours: report.hours,
            repaired: report.repaired,
            different,
            undecided: report.open.len() as u64 - different - events_missing,
            events_missing,
            left_out: report.left_out,
            due: report.due,
            last_error: report.last_error,
        }
    }
}

/// The part of the log that is not in ClickHouse yet.
#[derive(Serialize, ToSchema)]
struct Waiting {
    /// Segments that wait to be inserted.
    waiting: usize,
    /// Segments that ClickHouse refused. They are retried by command.
    parked: usize,
    /// Events in all segments.
    rows: u64,
}

/// Readiness probe
#[utoipa::path(
    get, path = "/readyz", operation_id = "getReadiness", tag = "Service",
    responses(
        (status = 200, description = "Events are accepted: `ready` or `degraded`.", body = Readiness),
        (status = 503, description = "Every event is refused, or the service is stopping: `UNAVAILABLE`. See `reasons`.", body = Readiness,
            headers(("Retry-After" = u64, description = "Seconds to wait."))),
    ),
)]
pub(super) async fn ready(State(context): State<Arc<TransportContext>>) -> Response {
    let app = &context.app;
    let health = Arc::clone(&app.health);
    // The checks look at the disk.
    let reasons = tokio::task::spawn_blocking(move || health.reasons()).await;
    let reasons = match reasons {
        Ok(reasons) => reasons,
        Err(error) => {
            tracing::error!(%error, "the health checks failed");
            return Failure::from(Error::internal()).into_response();
        }
    };
    let status = Status::of(&reasons);
    let is_refusing = status == Status::Refusing;
    let error = reasons.first().filter(|_| is_refusing).map(|reason| ErrorInfo::unavailable(reason.message.clone()));
    let segments = app.log.segments();
    let body = Readiness {
        status: status.as_str(),
        reasons: reasons.into_iter().map(ReadinessReason::from).collect(),
        clickhouse: if *app.clickhouse_up.borrow() { "up" } else { "away" },
        engine_sandbox: app.engine_sandbox.map(SandboxStatus::name),
        segments: Waiting { waiting: segments.backlog(), parked: segments.parked(), rows: segments.rows() },
        audit: app.auditor.status().report().into(),
        error,
    };
    if is_refusing {
        let wait = [(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS))];
        return (StatusCode::SERVICE_UNAVAILABLE, wait, Json(body)).into_response();
    }
    Json(body).into_response()
}
