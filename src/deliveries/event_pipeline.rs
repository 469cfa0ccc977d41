//! The event pipeline: counts the events of `/pipeline/events` as any other, and processes each once, in the order of its
//! user's sequence numbers. The results are recorded in Redis.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tallyhouse_delivery::domain::{EventState, EventStatus, FinalOutcome, SubscriptionId, SubscriptionStatus};
use tallyhouse_delivery::engine::{Engine, EngineError};
use tallyhouse_delivery::handler::{RedisHandler, RestoreError, RestoreSummary, TrialProcessor};
use tallyhouse_delivery::rate_limit::{Granted, UserRateLimit, count_users};
use tallyhouse_delivery::redis::RedisConnection;
use tallyhouse_delivery::store::DeliveryStore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::recent_ids::{RecentEvent, RecentIds};
use crate::clock::ArrivalClock;
use crate::domain::{
    Error, ErrorCode, EventDraft, FieldError, OrgId, PropertiesDraft, StoredEvent, Timestamp, Verdict,
};
use crate::ingest::pipeline::{Durability, Pipeline};
use crate::query::Queries;

/// What the pipeline's events have as their source: by it they are found in the log.
pub const PIPELINE_SOURCE: &str = "pipeline";
/// Most events of one call.
pub const PIPELINE_EVENTS_MAX: usize = 1_000;

/// How often it is looked whether Redis has lost data.
const LOSS_CHECK_PAUSE: Duration = Duration::from_secs(1);
/// How often an event that must be in ClickHouse soon is looked for, and the pause between.
const LOOK_UPS_MAX: u32 = 10;
const LOOK_UP_PAUSE: Duration = Duration::from_millis(200);
/// How long the sender of undecided events is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// An event as it was sent, valid as far as a transport can tell.
#[derive(Debug)]
pub struct PipelineEvent {
    /// Its id.
    pub event_id: String,
    /// Its user.
    pub user_id: String,
    /// Its type.
    pub event_type: String,
    /// Its payload.
    pub payload: PropertiesDraft<'static>,
    /// Its seq; 0 when it has none.
    pub seq: u64,
    /// When it happened; none: when it arrived.
    pub occurred_at: Option<Timestamp>,
}

/// What became of an event that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PipelineVerdict {
    /// It is new, durable and will be processed.
    Accepted,
    /// It was accepted before.
    Duplicate,
    /// Another event was accepted under its id.
    Conflict,
    /// Its user has sent too many. It was not taken.
    RateLimited {
        /// After which time there is room again.
        wait: Duration,
    },
}

/// The application behind `/pipeline`: takes events, and answers what became of them.
pub struct EventPipeline {
    parts: PipelineParts,
    recent: RecentIds,
}

/// What the pipeline works with.
pub struct PipelineParts {
    /// Whose events they are.
    pub org_id: OrgId,
    /// Where events go.
    pub ingest: Arc<Pipeline>,
    /// The time.
    pub clock: Arc<ArrivalClock>,
    /// How many events a user may send.
    pub limit: UserRateLimit,
    /// Hands events to the handler.
    pub engine: Engine,
    /// Processes events and records what becomes of them.
    pub handler: Arc<RedisHandler<TrialProcessor>>,
    /// Redis.
    pub redis: Arc<RedisConnection>,
    /// What the engine has recorded, and as which subscription.
    pub store: Arc<DeliveryStore>,
    /// See `store`.
    pub subscription: SubscriptionId,
}

/// How the pipeline is getting on.
#[derive(Clone, Debug)]
pub struct PipelineStatus {
    /// The engine.
    pub engine: SubscriptionStatus,
    /// Whether Redis answered when it was last asked something.
    pub is_redis_up: bool,
    /// Whether Redis lacks records of events that were processed.
    pub is_redis_incomplete: bool,
    /// Whether rate limits are kept in memory, since Redis is away.
    pub are_limits_in_memory: bool,
}

impl EventPipeline {
    /// Made of these.
    pub fn new(parts: PipelineParts) -> Self {
        Self { parts, recent: RecentIds::default() }
    }

    /// Whose events they are.
    pub const fn org_id(&self) -> &OrgId {
        &self.parts.org_id
    }

    /// Whether Redis did not answer when it was last asked something.
    pub fn is_redis_away(&self) -> bool {
        self.parts.redis.is_away()
    }

    /// Whether Redis lacks records of processed events.
    pub fn is_redis_incomplete(&self) -> bool {
        self.parts.handler.loss().is_lost()
    }

    /// Looks now and then whether Redis has lost data, and says so.
    pub fn start(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (pipeline, stop) = (Arc::clone(self), stop.clone());
        let watch = async move {
            loop {
                let PipelineParts { store, subscription, handler, .. } = &pipeline.parts;
                let (store, subscription) = (Arc::clone(store), *subscription);
                let recorded = tokio::task::spawn_blocking(move || store.settlement_count(subscription)).await;
                if let Ok(Ok(recorded)) = recorded {
                    // That Redis is away has been said.
                    let _ = handler.loss().check(recorded).await;
                }
                tokio::time::sleep(LOSS_CHECK_PAUSE).await;
            }
        };
        tasks.spawn(async move { stop.run_until_cancelled(watch).await });
    }

    /// Takes events: all that are valid, if all are, and what their users may send now. Answers in the same order, once
    /// they are durable. `bytes` is about how many they have.
    ///
    /// # Errors
    /// `Invalid` when any event is: then none is taken; the fields have the names of the interface, with the event's
    /// place (`events[3].userId`) unless there `is_single`. Else as [`Pipeline::submit`].
    pub async fn take(
        &self,
        events: &[PipelineEvent],
        is_single: bool,
        bytes: usize,
        queries: &Queries,
    ) -> Result<Vec<PipelineVerdict>, Error> {
        let PipelineParts { org_id, ingest, .. } = &self.parts;
        let now = self.parts.clock.now();
        let drafts: Vec<EventDraft<'_>> = events.iter().map(|event| self.draft(event, now)).collect();
        if let Err(error) = check(ingest, org_id, &drafts, is_single) {
            // A time that is wrong must not be taken for that of the event.
            events.iter().for_each(|event| self.recent.forget(&event.event_id));
            return Err(error);
        }
        let known = ingest.are_known(org_id, events.iter().map(|event| event.event_id.as_str()));
        let charged = Charged::of(events, &known, &self.parts.limit).await;
        let is_taken: Vec<bool> = (0..events.len()).map(|at| !charged.waits.contains_key(&at)).collect();
        let taken = drafts.iter().zip(&is_taken).filter(|(_, is_taken)| **is_taken).map(|(draft, _)| draft.clone());
        let submitted = self.submit(taken.collect(), bytes).await;
        let verdicts = match submitted {
            Ok(verdicts) => verdicts,
            Err(error) => {
                charged.give_back(|_| true, &self.parts.limit).await;
                return Err(error);
            }
        };
        let mut verdicts = verdicts.into_iter();
        let mut answers = Vec::with_capacity(events.len());
        for (at, event) in events.iter().enumerate() {
            if let Some(wait) = charged.waits.get(&at) {
                answers.push(Ok(PipelineVerdict::RateLimited { wait: *wait }));
                continue;
            }
            answers.push(match verdicts.next() {
                Some(Verdict::Conflict) if event.occurred_at.is_none() => self.look_again(event, queries).await,
                Some(verdict) => answer(&verdict, is_single, at),
                None => Err(Error::internal()),
            });
        }
        let is_accepted = |at: usize| matches!(answers.get(at), Some(Ok(PipelineVerdict::Accepted)));
        charged.give_back(|at| !is_accepted(at), &self.parts.limit).await;
        answers.into_iter().collect()
    }

    async fn submit(&self, drafts: Vec<EventDraft<'_>>, bytes: usize) -> Result<Vec<Verdict>, Error> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let PipelineParts { org_id, ingest, .. } = &self.parts;
        let submission = ingest.submit(org_id, drafts, bytes, Durability::Logged).await?;
        Ok(submission.verdicts().await?.verdicts)
    }

    fn draft<'a>(&self, event: &'a PipelineEvent, now: Timestamp) -> EventDraft<'a> {
        let recent = |occurred_at| {
            let (user_id, event_type) = (event.user_id.clone(), event.event_type.clone());
            move || RecentEvent { occurred_at, user_id, event_type, seq: event.seq }
        };
        let occurred_at = match event.occurred_at {
            Some(occurred_at) => {
                self.recent.time_of(&event.event_id, recent(occurred_at));
                occurred_at
            }
            None => self.recent.time_of(&event.event_id, recent(now)),
        };
        EventDraft {
            event_id: &event.event_id,
            event_type: &event.event_type,
            source: PIPELINE_SOURCE,
            user_id: &event.user_id,
            occurred_at: Some(occurred_at),
            seq: event.seq,
            properties: event.payload.clone(),
            ..EventDraft::default()
        }
    }

    /// An event without a time differs from the one that was accepted under its id. If that is by its time alone, which
    /// was forgotten since, it is the same event.
    async fn look_again(&self, event: &PipelineEvent, queries: &Queries) -> Result<PipelineVerdict, Error> {
        let payload = match &event.payload {
            PropertiesDraft::None => "",
            PropertiesDraft::Canonical(text) => text,
        };
        let is_same = |stored: &StoredEvent| {
            stored.user_id == event.user_id
                && stored.event_type == event.event_type
                && stored.seq == event.seq
                && stored.source == PIPELINE_SOURCE
                && stored.properties == payload
        };
        for _ in 0..LOOK_UPS_MAX {
            match self.stored(&event.event_id, queries).await? {
                Some(stored) if is_same(&stored) => return Ok(PipelineVerdict::Duplicate),
                Some(_) => return Ok(PipelineVerdict::Conflict),
                // It is on its way there.
                None => tokio::time::sleep(LOOK_UP_PAUSE).await,
            }
        }
        Ok(PipelineVerdict::Conflict)
    }

    async fn stored(&self, event_id: &str, queries: &Queries) -> Result<Option<StoredEvent>, Error> {
        match queries.event(&self.parts.org_id, event_id).await {
            Ok(found) => Ok(Some(found.value)),
            Err(error) if error.code == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where an event is.
    ///
    /// # Errors
    /// `NotFound` when no such event was accepted by the pipeline; `Unavailable` when that cannot be told now.
    pub async fn event(&self, event_id: &str, queries: &Queries) -> Result<EventStatus, Error> {
        if let Some(status) = self.parts.engine.event(event_id).await.map_err(unavailable)? {
            return Ok(status);
        }
        // It may not have been read yet.
        let pending = |user_id, event_type, seq| EventStatus {
            event_id: event_id.to_owned(),
            user_id,
            event_type,
            seq,
            state: EventState::Pending,
            attempts: 0,
            error: String::new(),
        };
        let is_known = self.parts.ingest.are_known(&self.parts.org_id, std::iter::once(event_id)) == [true];
        if let Some(RecentEvent { user_id, event_type, seq, .. }) = self.recent.find(event_id).filter(|_| is_known) {
            return Ok(pending(user_id, event_type, seq));
        }
        let stored = self.stored(event_id, queries).await?.filter(|stored| stored.source == PIPELINE_SOURCE);
        let stored = stored.ok_or_else(|| Error::not_found("the pipeline has no event with this id"))?;
        Ok(pending(stored.user_id, stored.event_type, stored.seq))
    }

    /// How it is getting on.
    ///
    /// # Errors
    /// `Unavailable` when it is stopping.
    pub async fn status(&self) -> Result<PipelineStatus, Error> {
        Ok(PipelineStatus {
            engine: self.parts.engine.status().await.map_err(unavailable)?,
            is_redis_up: !self.is_redis_away(),
            is_redis_incomplete: self.is_redis_incomplete(),
            are_limits_in_memory: self.parts.limit.is_in_memory(),
        })
    }

    /// Writes into Redis what it lacks of what was recorded.
    ///
    /// # Errors
    /// `Unavailable` when Redis is away, or the service is stopping.
    pub async fn rebuild(&self) -> Result<RestoreSummary, Error> {
        let restored = self.parts.handler.restore(&self.parts.engine).await;
        let restored = restored.map_err(|error: RestoreError| {
            tracing::error!(%error, "Redis could not be rebuilt");
            Error::unavailable("Redis is away; try again when it is back", RETRY_AFTER)
        })?;
        tracing::info!(?restored, "Redis is rebuilt");
        Ok(restored)
    }
}

/// What users were charged for the events of one call.
struct Charged {
    /// The events that are over the limit, and after which time there is room again.
    waits: HashMap<usize, Duration>,
    /// Which events each user was charged for.
    users: Vec<(String, Vec<usize>, Granted)>,
}

impl Charged {
    /// Charges each id once, unless it is known already.
    async fn of(events: &[PipelineEvent], known: &[bool], limit: &UserRateLimit) -> Self {
        let mut seen = HashSet::new();
        let is_charged = |at: &usize| {
            let is_known = known.get(*at).copied().unwrap_or_default();
            events.get(*at).is_some_and(|event| seen.insert(event.event_id.as_str()) && !is_known)
        };
        let charged: Vec<usize> = (0..events.len()).filter(is_charged).collect();
        let users = count_users(charged.iter().filter_map(|at| events.get(*at)).map(|event| event.user_id.as_str()));
        let granted = if users.is_empty() { Vec::new() } else { limit.take(&users).await };
        let mut places: HashMap<&str, Vec<usize>> = HashMap::new();
        for at in &charged {
            if let Some(event) = events.get(*at) {
                places.entry(&event.user_id).or_default().push(*at);
            }
        }
        let (mut waits, mut taken) = (HashMap::new(), Vec::with_capacity(users.len()));
        for ((user, _), granted) in users.into_iter().zip(granted) {
            let mut own = places.remove(user).unwrap_or_default();
            for over in own.split_off(granted.events.min(own.len())) {
                waits.insert(over, granted.wait);
            }
            taken.push((user.to_owned(), own, granted));
        }
        Self { waits, users: taken }
    }

    /// Events that were not accepted are not charged.
    async fn give_back(&self, is_free: impl Fn(usize) -> bool, limit: &UserRateLimit) {
        for (user, own, granted) in &self.users {
            let count = own.iter().filter(|at| is_free(**at)).count();
            limit.give_back(user, granted, count).await;
        }
    }
}

/// Nothing goes on of a call with an event that is wrong.
fn check(ingest: &Pipeline, org_id: &OrgId, drafts: &[EventDraft<'_>], is_single: bool) -> Result<(), Error> {
    let rejections = ingest.check(org_id, drafts)?;
    let wrong = rejections.into_iter().enumerate().filter_map(|(at, rejection)| Some((at, rejection?)));
    let faults: Vec<FieldError> = wrong
        .flat_map(|(at, rejection)| rejection.errors.into_iter().map(move |fault| named(fault, is_single, at)))
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Error::invalid(faults)) }
}

/// The fault under the name that its field has here.
fn named(fault: FieldError, is_single: bool, at: usize) -> FieldError {
    let field = match fault.field.as_str() {
        "event_id" => "eventId",
        "user_id" => "userId",
        "occurred_at" => "occurredAt",
        "properties" => "payload",
        other => other,
    };
    let field = if is_single { field.to_owned() } else { format!("events[{at}].{field}") };
    FieldError::new(field, fault.message)
}

fn answer(verdict: &Verdict, is_single: bool, at: usize) -> Result<PipelineVerdict, Error> {
    match verdict {
        Verdict::Accepted => Ok(PipelineVerdict::Accepted),
        Verdict::Duplicate => Ok(PipelineVerdict::Duplicate),
        Verdict::Conflict => Ok(PipelineVerdict::Conflict),
        Verdict::Undecided => {
            let message = "whether an event is new cannot be told just now; send the same again";
            Err(Error::unavailable(message, RETRY_AFTER))
        }
        Verdict::Rejected(rejection) => {
            let faults = rejection.errors.iter().map(|fault| named(fault.clone(), is_single, at));
            Err(Error::invalid(faults.collect()))
        }
    }
}

fn unavailable(error: EngineError) -> Error {
    tracing::warn!(%error, "the pipeline cannot be asked");
    Error::unavailable("the pipeline is not running just now", RETRY_AFTER)
}

/// The name of a state.
pub const fn state_name(state: &EventState) -> &'static str {
    match state {
        EventState::Pending => "pending",
        EventState::Buffered { .. } => "buffered",
        EventState::InFlight => "in_flight",
        EventState::Settled(settlement) => match settlement.outcome {
            FinalOutcome::Processed => "processed",
            FinalOutcome::Failed => "failed",
        },
    }
}
