//! The reasons why the service refuses events or counts them late.
//!
//! Each part registers a check when the service is wired, and a probe runs all of them: `/readyz` lists
//! the reasons, `grpc.health.v1` and the metric `tallyhouse_health_reason` follow them. A check looks at the
//! state of now, without waiting for a request to fail, so that a probe heals when its cause is gone. The
//! codes are part of the interface: `docs/health.md` lists them, and they never change.

use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

/// How long a refusal without a lasting state is reported.
const RECENT: Duration = Duration::from_secs(10);

/// Declares each code once: its name in Rust, its name in answers, and what it does to readiness.
macro_rules! reason_codes {
    ($( $(#[doc = $doc:literal])+ $variant:ident, $code:literal, $effect:ident; )+) => {
        /// The closed set of reasons, with stable names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ReasonCode { $( $(#[doc = $doc])+ $variant, )+ }

        impl ReasonCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code in answers and labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The effect of the reason on readiness.
            pub const fn effect(self) -> Effect {
                match self { $(Self::$variant => Effect::$effect,)+ }
            }

            /// The meaning of the reason, as in `docs/health.md`.
            pub fn meaning(self) -> String {
                match self { $(Self::$variant => concat!($($doc, " "),+).split_whitespace().collect::<Vec<_>>().join(" "),)+ }
            }
        }
    };
}

reason_codes! {
    /// The service has been told to stop.
    Stopping, "STOPPING", Refuses;
    /// The free space on the log's disk is down to `log_free_bytes_min`, or below what the last batch needed
    /// above it.
    DiskReserve, "DISK_RESERVE", Refuses;
    /// The log's disk is full.
    DiskFull, "DISK_FULL", Refuses;
    /// The log cannot be written for another reason than a full disk.
    LogUnwritable, "LOG_UNWRITABLE", Refuses;
    /// The log has reached `log_bytes_max`, because ClickHouse has not stored enough of it.
    LogFull, "LOG_FULL", Refuses;
    /// `index_ids_max` ids are in memory, and none of them can leave it before the id ledger on disk has taken
    /// some.
    IndexFull, "INDEX_FULL", Refuses;
    /// The wall clock has jumped relative to the monotonic clock and is not trusted yet.
    ClockImplausible, "CLOCK_IMPLAUSIBLE", Refuses;
    /// The keys for verifying tokens have not been fetched yet, so no caller can be authenticated.
    AuthKeysMissing, "AUTH_KEYS_MISSING", Refuses;
    /// Within the last 10 seconds, batches were refused because they waited longer than
    /// `ingest_wait_ms_max` for the limit `ingest_bytes_in_flight_max`.
    IngestBufferFull, "INGEST_BUFFER_FULL", Degrades;
    /// Calls with a new idempotency key are refused: `idempotency_keys_max` or
    /// `idempotency_bytes_max` is reached. Other calls are accepted.
    IdempotencyFull, "IDEMPOTENCY_FULL", Degrades;
    /// Calls with an idempotency key are refused: the file of keys cannot be read or written. Other
    /// calls are accepted.
    IdempotencyUnavailable, "IDEMPOTENCY_UNAVAILABLE", Degrades;
    /// The maximum number of connections is open (`connections_max`, or the limit of open files).
    /// Each new one replaces the least useful one.
    ConnectionsFull, "CONNECTIONS_FULL", Degrades;
    /// ClickHouse does not answer. Events are accepted and kept in the log.
    ClickhouseAway, "CLICKHOUSE_AWAY", Degrades;
    /// The id ledger is being rebuilt from ClickHouse, or repaired. An event whose id it cannot decide about is
    /// answered `undecided`, unless it is a repetition with the same time.
    LedgerIncomplete, "LEDGER_INCOMPLETE", Degrades;
    /// Redis does not answer. Events are accepted. The pipeline's events are processed when Redis is
    /// back, and their rate limits are kept in memory until then.
    RedisAway, "REDIS_AWAY", Degrades;
    /// Redis lacks records of events that the pipeline has processed. The reason ends with
    /// `tallyhouse deliveries rebuild`.
    RedisIncomplete, "REDIS_INCOMPLETE", Degrades;
    /// Subscriptions were so far behind that segments of the log were deleted before they had read them
    /// (`subscription_held_bytes_max`): events of these segments are counted, but not delivered to them. The reason ends
    /// with a restart, or when the subscriptions are deleted.
    DeliveriesMissed, "DELIVERIES_MISSED", Degrades;
    /// The database of the ticketing catalogue does not answer: the catalogue's calls are refused. Events are accepted.
    TicketingUnavailable, "TICKETING_UNAVAILABLE", Degrades;
    /// Notifications of the ticketing catalogue have been waiting for their delivery for longer than
    /// `ticketing_notify_late_seconds`. They are kept, and sent again.
    NotificationsLate, "NOTIFICATIONS_LATE", Degrades;
    /// Notifications of the ticketing catalogue are no longer sent, because `ticketing_notify_attempts_max` attempts
    /// have failed. They are kept. The reason ends when you retry them.
    NotificationsGivenUp, "NOTIFICATIONS_GIVEN_UP", Degrades;
    /// Files of damaged segments are kept beside the log (`*.damaged`): their intact frames are
    /// stored, and the other events are lost unless you have a copy. The reason ends when you
    /// restore or delete the files.
    SegmentsDamaged, "SEGMENTS_DAMAGED", Degrades;
    /// ClickHouse has refused segments. Their events are kept and are counted once `tallyhouse segments retry`
    /// succeeds.
    SegmentsParked, "SEGMENTS_PARKED", Degrades;
}

/// The effect of a reason on readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Events are accepted. Some are counted late, or some kinds of calls are refused.
    Degrades,
    /// Every event is refused.
    Refuses,
}

/// A current reason, with its details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// A readable message with measured values and the setting, without secrets, paths or names of
    /// organizations.
    pub message: String,
}

impl Reason {
    /// A reason with its message.
    pub fn new(code: ReasonCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The state of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Events are accepted and counted.
    Ready,
    /// Events are accepted; something else is wrong.
    Degraded,
    /// Every event is refused.
    Refusing,
}

impl Status {
    /// The status that results from these reasons.
    pub fn of(reasons: &[Reason]) -> Self {
        match reasons.iter().map(|reason| reason.code.effect()).max() {
            None => Self::Ready,
            Some(Effect::Degrades) => Self::Degraded,
            Some(Effect::Refuses) => Self::Refusing,
        }
    }

    /// The status in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Refusing => "refusing",
        }
    }
}

type Check = Box<dyn Fn() -> Option<Reason> + Send + Sync>;

/// The health checks of all modules.
#[derive(Default)]
pub struct Health {
    checks: RwLock<Vec<Check>>,
}

impl Health {
    /// Adds a check. It is run by every probe, on a thread that may block; it must return soon.
    pub fn register(&self, check: impl Fn() -> Option<Reason> + Send + Sync + 'static) {
        self.checks.write().push(Box::new(check));
    }

    /// Runs every check and returns the reasons found, in the order of [`ReasonCode`]. Blocks for as long as
    /// a look at the log's disk takes.
    pub fn reasons(&self) -> Vec<Reason> {
        let mut reasons: Vec<Reason> = self.checks.read().iter().filter_map(|check| check()).collect();
        reasons.sort_by_key(|reason| reason.code);
        reasons
    }
}

/// Remembers for 10 seconds that a request was refused because a temporary limit was reached.
#[derive(Debug, Default)]
pub struct RecentRefusal(Mutex<Option<Instant>>);

impl RecentRefusal {
    /// Records a refusal.
    pub fn note(&self) {
        *self.0.lock() = Some(Instant::now());
    }

    /// Records that a request of the same kind was accepted.
    pub fn clear(&self) {
        *self.0.lock() = None;
    }

    /// Whether a request was refused within the last 10 seconds, and none accepted since.
    pub fn is_recent(&self) -> bool {
        self.0.lock().is_some_and(|at| at.elapsed() < RECENT)
    }
}

/// The page `docs/health.md`.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Health\n\n\
         `GET /healthz` answers 200 while the process runs. Use it as a liveness probe: a restart fixes none of the reasons below.\n\n\
         `GET /readyz` answers 200 with `\"status\": \"ready\"` or `\"degraded\"` while events are accepted, and 503 with\n\
         `\"status\": \"refusing\"` while every event is refused. Both answers list `reasons`, each with a stable `code`, a `message`\n\
         with current values and the setting, and `refuses_events`. `grpc.health.v1.Health` reports NOT_SERVING for the whole service\n\
         (the empty name) and for `tallyhouse.v1.IngestService` while every event is refused, and for all services when the service\n\
         stops. It follows within a second. The gauge `tallyhouse_health_reason` is 1 for each current code.\n\n\
         | code | events | meaning |\n|---|---|---|\n",
    );
    for code in ReasonCode::ALL {
        let events = match code.effect() {
            Effect::Refuses => "refused",
            Effect::Degrades => "accepted",
        };
        page.push_str(&format!("| `{}` | {events} | {} |\n", code.as_str(), code.meaning()));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_reason_decides() {
        let health = Health::default();
        assert_eq!(Status::of(&health.reasons()), Status::Ready);
        health.register(|| Some(Reason::new(ReasonCode::SegmentsParked, "1")));
        health.register(|| None);
        assert_eq!(Status::of(&health.reasons()), Status::Degraded);
        health.register(|| Some(Reason::new(ReasonCode::DiskFull, "0 bytes")));
        let reasons = health.reasons();
        assert_eq!(Status::of(&reasons), Status::Refusing);
        let codes: Vec<ReasonCode> = reasons.iter().map(|reason| reason.code).collect();
        assert_eq!(codes, [ReasonCode::DiskFull, ReasonCode::SegmentsParked], "the gravest comes first");
    }

    #[test]
    fn codes_that_refuse_come_before_those_that_degrade() {
        assert!(ReasonCode::ALL.is_sorted_by_key(|code| std::cmp::Reverse(code.effect())));
    }

    #[test]
    fn a_refusal_is_recent_until_something_is_taken() {
        let refusal = RecentRefusal::default();
        assert!(!refusal.is_recent());
        refusal.note();
        assert!(refusal.is_recent());
        refusal.clear();
        assert!(!refusal.is_recent());
    }

    #[test]
    fn the_page_of_health_is_true() {
        let page = include_str!("../docs/health.md");
        if std::env::var_os("TALLYHOUSE_WRITE_PAGES").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/health.md"), reference_markdown())
                .expect("written");
            return;
        }
        assert_eq!(page, reference_markdown(), "run this test with TALLYHOUSE_WRITE_PAGES=1 to write the page");
    }
}
