//! Subscriptions, their states and their dead letters, as they are shown.

use serde::Serialize;
use serde_json::Value;
use tallyhouse_delivery::domain::{
    DeadLetter, Event, EventFilter, EventState, EventStatus, FinalOutcome, OldestEvent, Order, UserStatus,
};
use utoipa::ToSchema;

use crate::deliveries::event_pipeline::state_name;
use crate::deliveries::subscriptions::{HandlerSpec, Start, Subscription, SubscriptionReport};
use crate::domain::Timestamp;
use crate::transport::{properties, rfc3339};

/// A subscription.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredSubscription {
    /// Its name.
    #[schema(example = "orders")]
    name: String,
    /// Where it began: `now`, `earliest`, or a time.
    #[schema(example = "now")]
    start: String,
    /// Who handles its events.
    handler: StoredHandler,
    /// Which events it gets. An empty list lets all through.
    filter: StoredFilter,
    /// `per_user` or `arrival`.
    #[schema(example = "per_user")]
    order: &'static str,
    /// Attempts before an event becomes a dead letter.
    #[schema(example = 3)]
    attempts_max: u32,
    /// The wait after the first attempt, in milliseconds.
    #[schema(example = 200)]
    backoff_ms_min: u64,
    /// The longest wait, in milliseconds.
    #[schema(example = 30_000)]
    backoff_ms_max: u64,
    /// The longest time of an attempt, in milliseconds.
    #[schema(example = 30_000)]
    timeout_ms: u64,
    /// How long missing seqs are waited for, in milliseconds; 0: without limit.
    #[schema(example = 0)]
    skip_gaps_after_ms: u64,
    /// The number of users whose events are handled at a time.
    #[schema(example = 16)]
    concurrency: u64,
    /// Whether it is paused.
    is_paused: bool,
    /// When it was created.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: String,
}

/// Who handles events. Secrets are not shown.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredHandler {
    /// `webhook`, `pull` or `trial`.
    #[serde(rename = "type")]
    #[schema(example = "webhook")]
    kind: &'static str,
    /// The receiver of webhooks; null for other handlers.
    #[schema(required, example = "https://app.example/hooks/tallyhouse")]
    url: Option<String>,
    /// The number of secrets that webhooks are signed with.
    #[schema(example = 1)]
    secrets: usize,
}

/// Which events are delivered.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredFilter {
    /// Types.
    types: Vec<String>,
    /// Campaigns.
    campaign_ids: Vec<String>,
    /// Sources.
    sources: Vec<String>,
}

impl From<Subscription> for StoredSubscription {
    fn from(subscription: Subscription) -> Self {
        let skip_gaps_after_ms = subscription.skip_gaps_after_ms();
        let Subscription { name, start, handler, settings, created_at } = subscription;
        let kind = handler.kind();
        let (url, secrets) = match handler {
            HandlerSpec::Webhook { url, secrets } => (Some(url), secrets.len()),
            HandlerSpec::Pull | HandlerSpec::Trial => (None, 0),
        };
        let EventFilter { types, campaign_ids, sources } = settings.filter;
        Self {
            name,
            start: match start {
                Start::Now => "now".to_owned(),
                Start::Earliest => "earliest".to_owned(),
                Start::Time(millis) => rfc3339::write(Timestamp::from_millis(millis)),
            },
            handler: StoredHandler { kind, url, secrets },
            filter: StoredFilter { types, campaign_ids, sources },
            order: match settings.order {
                Order::PerUser => "per_user",
                Order::Arrival => "arrival",
            },
            attempts_max: settings.attempts_max,
            backoff_ms_min: settings.backoff.ms_min,
            backoff_ms_max: settings.backoff.ms_max,
            timeout_ms: settings.timeout_ms,
            skip_gaps_after_ms,
            concurrency: settings.concurrency as u64,
            is_paused: settings.is_paused,
            created_at: rfc3339::write(created_at),
        }
    }
}

/// A new subscription.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct CreatedSubscription {
    #[serde(flatten)]
    pub(super) subscription: StoredSubscription,
    /// The secret that the service made for its webhooks: it is shown only here. Null when none was made.
    #[schema(required, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub(super) secret: Option<String>,
}

/// All subscriptions.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct SubscriptionList {
    /// By name.
    pub(super) subscriptions: Vec<StoredSubscription>,
}

/// The state of a subscription. Counts are since the service was started, or since the handler was changed.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct SubscriptionState {
    /// Whether it is paused.
    is_paused: bool,
    /// Why its handler cannot be called; null if it can.
    #[schema(required)]
    handler_error: Option<String>,
    /// Events that were read and have not ended: the lag in events, unless `is_full` or `catching_up_to`.
    waiting: u64,
    /// Events among them that came before their turn.
    buffered: u64,
    /// Events among them that the handler has.
    in_flight: u64,
    /// Users among them whose next event is tried again later.
    retrying: u64,
    /// Users with such events.
    users: u64,
    /// Time since the oldest of them was accepted, in milliseconds: the lag in time.
    lag_ms: u64,
    /// The oldest of them; null if nothing waits.
    #[schema(required)]
    oldest: Option<WaitingEvent>,
    /// Events that were handled.
    processed: u64,
    /// Events that became dead letters.
    failed: u64,
    /// Attempts that failed and were repeated.
    retries: u64,
    /// Gaps that are not waited for any more.
    skipped: u64,
    /// Dead letters that are kept.
    dead_letters: u64,
    /// Whether as many events wait as can (`subscription_waiting_max`): more may be in the log.
    is_full: bool,
    /// Segments of the log that were deleted before they were read, because the subscription was too far behind
    /// (`subscription_held_bytes_max`). Above 0, events were lost for it.
    missed_segments: u64,
    /// While events are read that were stored before the subscription was created: up to which time of acceptance. Null
    /// otherwise.
    #[schema(required, format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    catching_up_to: Option<String>,
    /// Consumers that are connected, if the handler is `pull`.
    consumers: u64,
}

/// An event that waits.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct WaitingEvent {
    /// Its id.
    event_id: String,
    /// Its user; null if none.
    #[schema(required)]
    user_id: Option<String>,
    /// Its seq; null if it has none.
    #[schema(required)]
    seq: Option<u64>,
}

impl From<SubscriptionReport> for SubscriptionState {
    fn from(SubscriptionReport { engine, consumers }: SubscriptionReport) -> Self {
        Self {
            is_paused: engine.is_paused,
            handler_error: given(engine.handler_error),
            waiting: engine.waiting,
            buffered: engine.buffered,
            in_flight: engine.in_flight,
            retrying: engine.retrying,
            users: engine.users,
            lag_ms: engine.oldest_ms,
            oldest: engine.oldest.map(|OldestEvent { event_id, user_id, seq }| WaitingEvent {
                event_id,
                user_id: given(user_id),
                seq: above_zero(seq),
            }),
            processed: engine.processed,
            failed: engine.failed,
            retries: engine.retries,
            skipped: engine.skipped,
            dead_letters: engine.dead_letters,
            is_full: engine.is_full,
            missed_segments: engine.missed,
            catching_up_to: engine.catching_up_ms.map(time),
            consumers: consumers as u64,
        }
    }
}

/// Where an event is.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct DeliveryStatus {
    /// Its id.
    event_id: String,
    /// Its user; null if none.
    #[schema(required)]
    user_id: Option<String>,
    /// Its type.
    event_type: String,
    /// Its seq; null if it has none.
    #[schema(required)]
    seq: Option<u64>,
    /// `pending`, `buffered` (it came before its turn), `in_flight`, `processed` or `failed`.
    #[schema(example = "processed")]
    status: &'static str,
    /// The seq that is waited for; null unless the event is buffered.
    #[schema(required)]
    waiting_for_seq: Option<u64>,
    /// Attempts so far.
    attempts: u32,
    /// Why the last attempt failed; null if it did not.
    #[schema(required)]
    error: Option<String>,
    /// When the event ended; null before.
    #[schema(required, format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    processed_at: Option<String>,
}

impl From<EventStatus> for DeliveryStatus {
    fn from(status: EventStatus) -> Self {
        let name = state_name(&status.state);
        let (waiting_for_seq, ended) = match &status.state {
            EventState::Buffered { waiting_for_seq } => (Some(*waiting_for_seq), None),
            EventState::Settled(settlement) => (None, Some(settlement)),
            EventState::Pending | EventState::InFlight => (None, None),
        };
        let is_processed = ended.is_some_and(|settlement| settlement.outcome == FinalOutcome::Processed);
        Self {
            status: name,
            waiting_for_seq,
            processed_at: ended.map(|settlement| time(settlement.processed_at_ms)),
            event_id: status.event_id,
            user_id: given(status.user_id),
            event_type: status.event_type,
            seq: above_zero(status.seq),
            attempts: status.attempts,
            error: given(status.error).filter(|_| !is_processed),
        }
    }
}

/// The state of a user's events.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct UserDeliveries {
    /// The user.
    user_id: String,
    /// The seq whose turn it is.
    next_seq: u64,
    /// Events that wait.
    waiting: u64,
    /// The lowest seq that came before its turn; null if none did.
    #[schema(required)]
    lowest_buffered_seq: Option<u64>,
    /// The newest missing seqs, at most 100.
    gaps: Vec<u64>,
    /// The number of all missing seqs.
    gaps_total: u64,
    /// Whether the user is paused.
    is_paused: bool,
}

impl UserDeliveries {
    pub(super) fn new(user_id: String, status: &UserStatus) -> Self {
        let UserStatus { next_seq, waiting, lowest_buffered_seq, gaps, is_paused } = status;
        Self {
            user_id,
            next_seq: *next_seq,
            waiting: *waiting,
            lowest_buffered_seq: above_zero(*lowest_buffered_seq),
            gaps: gaps.named(),
            gaps_total: gaps.total(),
            is_paused: *is_paused,
        }
    }
}

/// An event that was given up.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredLetter {
    /// Its number, unique in the subscription and rising.
    #[schema(example = 17)]
    number: u64,
    /// Why: `handler_failed`, `seq_repeated` or `seq_late`.
    #[schema(example = "handler_failed")]
    reason: &'static str,
    /// What the handler said last, or what is wrong with the seq.
    error: String,
    /// Attempts that failed.
    attempts: u32,
    /// When it was given up.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    failed_at: String,
    /// Whether it had been replayed before.
    is_replay: bool,
    /// The event.
    event: DeliveredEvent,
}

/// An event as it is delivered.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct DeliveredEvent {
    /// Its id.
    event_id: String,
    /// Its user; null if none.
    #[schema(required)]
    user_id: Option<String>,
    /// What happened.
    event_type: String,
    /// The properties; an empty object if there are none.
    #[schema(value_type = Object)]
    properties: Value,
    /// When it happened.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    timestamp: String,
    /// Its seq; 0 if it has none.
    seq: u64,
    /// The system that recorded it; null if unknown.
    #[schema(required)]
    source: Option<String>,
    /// The campaign; null if none.
    #[schema(required)]
    campaign_id: Option<String>,
    /// The creative; null if none.
    #[schema(required)]
    creative_id: Option<String>,
}

impl From<&Event> for DeliveredEvent {
    fn from(event: &Event) -> Self {
        Self {
            event_id: event.id.clone(),
            user_id: given(event.user_id.clone()),
            event_type: event.event_type.clone(),
            properties: properties::to_value(&event.properties),
            timestamp: rfc3339::write(Timestamp::from_millis(event.occurred_at_ms)),
            seq: event.seq,
            source: given(event.source.clone()),
            campaign_id: given(event.campaign_id.clone()),
            creative_id: given(event.creative_id.clone()),
        }
    }
}

impl From<DeadLetter> for StoredLetter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            number: letter.number,
            reason: letter.reason.as_str(),
            error: letter.error,
            attempts: letter.attempts,
            failed_at: time(letter.failed_at_ms),
            is_replay: letter.is_replay,
            event: DeliveredEvent::from(&*letter.event),
        }
    }
}

/// Some dead letters.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct LetterList {
    /// By number.
    pub(super) dead_letters: Vec<StoredLetter>,
    /// The `from` of the next request; null if the list has ended.
    #[schema(required)]
    pub(super) next: Option<u64>,
}

/// How many dead letters were replayed.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct ReplayedLetters {
    /// Those that were found and are delivered again.
    pub(super) replayed: u64,
}

/// How many dead letters were deleted.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct DiscardedLetters {
    /// Those that were found and deleted.
    pub(super) discarded: u64,
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn above_zero(number: u64) -> Option<u64> {
    (number > 0).then_some(number)
}

fn time(millis: u64) -> String {
    rfc3339::write_millis(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
}
