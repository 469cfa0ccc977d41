//! Routes for probes: `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::failure::{ErrorInfo, Failure};
use crate::audit::StatusReport;
use crate::clickhouse::engine::SandboxStatus;
use crate::domain::{Error, HourResult};
use crate::health::{Effect, Reason, Status};
use crate::transport::context::TransportContext;
use crate::transport::rfc3339;

/// How long a probe is told to wait, in seconds.
const RETRY_AFTER_SECONDS: u64 = 1;

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

/// How the service is. While every event is refused, `error` is there too.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ready`; `degraded` when events are taken and something else is wrong, such as that ClickHouse is away or has
    /// refused segments; `refusing` when every event is refused.
    #[schema(example = "ready")]
    status: &'static str,
    /// Why the status is not `ready`; the gravest reason first. `docs/health.md` lists the codes.
    reasons: Vec<ReadinessReason>,
    /// Whether ClickHouse answers: `up` or `away`.
    #[schema(example = "up")]
    clickhouse: &'static str,
    /// How much of the embedded ClickHouse's sandbox the kernel enforces: `full`, `partial` or `none`. Left out where
    /// ClickHouse is a server of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "full")]
    engine_sandbox: Option<&'static str>,
    /// What of the log is not in ClickHouse yet.
    segments: Waiting,
    /// What the audit of the rollups has found.
    audit: Audited,
    /// The error that callers with events get, in the form of all errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorInfo>,
}

/// A reason why events are refused, or counted late.
#[derive(Serialize, ToSchema)]
struct ReadinessReason {
    /// For programs. It never changes.
    #[schema(example = "CLICKHOUSE_AWAY")]
    code: &'static str,
    /// For people: the values of now, and the setting.
    #[schema(example = "ClickHouse does not answer")]
    message: String,
    /// Whether it makes the service refuse every event.
    refuses_events: bool,
}

impl From<Reason> for ReadinessReason {
    fn from(reason: Reason) -> Self {
        let refuses_events = reason.code.effect() == Effect::Refuses;
        Self { code: reason.code.as_str(), message: reason.message, refuses_events }
    }
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
    /// Hours of organizations in which a rollup is wrong.
    different: u64,
    /// Hours of organizations that could not be judged yet.
    undecided: u64,
    /// Hours of organizations in which a rollup counts more events than are stored, without a sign that they were counted
    /// twice.
    events_missing: u64,
    /// Hours that were not right and are not counted above, since there are too many.
    left_out: u64,
    /// Hours that wait to be audited.
    due: u64,
    /// Why the background audit could not look at its last hour. Empty: it could.
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
        (status = 200, description = "It does: `ready` or `degraded`.", body = Readiness),
        (status = 503, description = "It refuses every event, or is stopping: `UNAVAILABLE`. `reasons` says why.", body = Readiness,
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
            tracing::error!(%error, "the checks of health failed");
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
