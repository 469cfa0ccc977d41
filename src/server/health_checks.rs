//! Registers the health checks of the service. Transports add their own.

use std::sync::Arc;

use tallyhouse_ledger::LedgerStatus;
use tokio::sync::watch;

use crate::clock::ArrivalClock;
use crate::deliveries::event_pipeline::EventPipeline;
use crate::deliveries::subscriptions::Subscriptions;
use crate::health::{Health, Reason, ReasonCode, RecentRefusal};
use crate::idempotency::IdempotentIngest;
use crate::ingest::index::Index;
use crate::log::{AppendError, EventLog};

/// Adds the checks of the pipeline.
pub(super) fn register_pipeline(pipeline: &Arc<EventPipeline>, health: &Health) {
    let checked = Arc::clone(pipeline);
    health.register(move || {
        let message = "Redis does not answer: the pipeline's events wait, and their rate limits are kept in memory";
        checked.is_redis_away().then(|| Reason::new(ReasonCode::RedisAway, message))
    });
    let checked = Arc::clone(pipeline);
    health.register(move || {
        let message = "Redis lacks records of processed events: rebuild them with `tallyhouse deliveries rebuild`";
        checked.is_redis_incomplete().then(|| Reason::new(ReasonCode::RedisIncomplete, message))
    });
}

/// Adds the check of subscriptions.
pub(super) fn register_subscriptions(subscriptions: &Arc<Subscriptions>, health: &Health) {
    let checked = Arc::clone(subscriptions);
    health.register(move || {
        let missing = checked.totals().missing;
        (missing > 0).then(|| {
            let message = format!(
                "{missing} subscriptions were so far behind that segments of the log were deleted before they had read \
                 them (subscription_held_bytes_max)"
            );
            Reason::new(ReasonCode::DeliveriesMissed, message)
        })
    });
}

/// What is checked.
pub(super) struct Checked {
    /// The log and its segments.
    pub(super) log: Arc<dyn EventLog>,
    /// The ids in memory.
    pub(super) index: Arc<Index>,
    /// The clock.
    pub(super) clock: Arc<ArrivalClock>,
    /// Calls with idempotency keys.
    pub(super) calls: Arc<IdempotentIngest>,
    /// Batches that found no room to wait in.
    pub(super) buffer_refusals: Arc<RecentRefusal>,
    /// Whether ClickHouse answers.
    pub(super) clickhouse_up: watch::Receiver<bool>,
}

impl Checked {
    /// Adds a check for each reason.
    pub(super) fn register(self, health: &Health) {
        let Self { log, index, clock, calls, buffer_refusals, clickhouse_up } = self;
        let segments = Arc::clone(log.segments());
        health.register({
            let log = Arc::clone(&log);
            move || log.refusal().and_then(log_reason)
        });
        health.register({
            let ledger = Arc::clone(index.ledger());
            move || ledger_reason(&ledger.status())
        });
        health.register(move || {
            let max = index.ids_max();
            index.is_full().then(|| {
                let message = format!("{max} ids that the id ledger has not taken yet are in memory (index_ids_max)");
                Reason::new(ReasonCode::IndexFull, message)
            })
        });
        health.register(move || {
            let doubt = clock.judge().err()?;
            Some(Reason::new(ReasonCode::ClockImplausible, doubt.to_string()))
        });
        health.register(move || {
            let message = "batches were refused for want of room among ingest_bytes_in_flight_max";
            buffer_refusals.is_recent().then(|| Reason::new(ReasonCode::IngestBufferFull, message))
        });
        health.register({
            let calls = Arc::clone(&calls);
            move || {
                let message = "idempotency_keys_max, idempotency_bytes_max or an organization's share of them is reached; its new keys are refused";
                calls.was_full().then(|| Reason::new(ReasonCode::IdempotencyFull, message))
            }
        });
        health.register(move || {
            let message = "the file of idempotency keys cannot be read or written; the log has the cause";
            calls.has_failed().then(|| Reason::new(ReasonCode::IdempotencyUnavailable, message))
        });
        health.register(move || {
            let is_up = *clickhouse_up.borrow();
            (!is_up).then(|| Reason::new(ReasonCode::ClickhouseAway, "ClickHouse does not answer"))
        });
        health.register({
            let log = Arc::clone(&log);
            move || {
                let damaged = log.kept().damaged;
                (damaged > 0).then(|| {
                    let message = format!("the files of {damaged} damaged segments are kept beside the log");
                    Reason::new(ReasonCode::SegmentsDamaged, message)
                })
            }
        });
        health.register(move || {
            let parked = segments.parked();
            (parked > 0).then(|| {
                let message = format!("ClickHouse refused {parked} segments; see `tallyhouse segments`");
                Reason::new(ReasonCode::SegmentsParked, message)
            })
        });
    }
}

/// Why the id ledger leaves events undecided.
fn ledger_reason(ledger: &LedgerStatus) -> Option<Reason> {
    let message = if !ledger.is_complete {
        "the id ledger is being rebuilt from ClickHouse; until then, events whose ids are not known are undecided"
    } else if ledger.damaged_runs > 0 {
        "the id ledger is damaged and is being repaired; until then, events whose ids may be in its damaged part are \
         undecided"
    } else {
        return None;
    };
    Some(Reason::new(ReasonCode::LedgerIncomplete, message))
}

/// A refusal of the log, as a reason; none when the log is shut, which the transports say.
fn log_reason(refusal: AppendError) -> Option<Reason> {
    let code = match refusal {
        AppendError::Full { .. } => ReasonCode::LogFull,
        AppendError::DiskReserve { .. } => ReasonCode::DiskReserve,
        AppendError::DiskFull => ReasonCode::DiskFull,
        // The system's own words may name paths.
        AppendError::Io(_) => {
            return Some(Reason::new(
                ReasonCode::LogUnwritable,
                "the log cannot be written; the log lines have the cause",
            ));
        }
        AppendError::Shut => return None,
    };
    Some(Reason::new(code, refusal.to_string()))
}
