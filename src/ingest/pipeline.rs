//! The path of a batch: validates, deduplicates, logs and acknowledges it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::batch::{Batch, DecidedBatch};
use super::fingerprint::Fingerprinter;
use super::index::Index;
use super::outcome::{Outcome, Outcomes};
use super::stored_wait::{AwaitedSegments, ParkedIds};
use crate::clock::ArrivalClock;
use crate::domain::{Error, Event, EventDraft, EventLimits, OrgId, Rejection, Timestamp, Verdict, VerdictCounts};
use crate::event_row;
use crate::event_store::{EventStore, StoreError};
use crate::event_types::{Checked, EventTypes};
use crate::fairness::{FairPermit, FairSemaphore, Shares, Tenant};
use crate::health::RecentRefusal;
use crate::instruments;
use crate::limits::RateLimits;
use crate::log::{AppendError, EventLog};
use crate::retention::{self, Retention};
use crate::trace::{self, child_span};

/// What a batch is counted as at least, in bytes, when room is given out: what
/// it costs beside its events.
const BATCH_BYTES_MIN: usize = 1 << 10;
/// How long a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What an answer promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The events are on this service's disk, synced.
    #[default]
    Logged,
    /// The accepted events and the duplicates are in ClickHouse: a query made after the answer counts them.
    Stored,
}

/// The bounds of ingest. See the settings of the same names in
/// [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct PipelineSettings {
    /// The bounds of an event.
    pub limits: EventLimits,
    /// Most events in a batch.
    pub batch_events_max: usize,
    /// Bytes of events that may wait for the log at a time.
    pub bytes_in_flight_max: u32,
    /// Most of them of one organization, in percent.
    pub share_percent: u32,
    /// Longest a batch waits for room among them.
    pub wait_max: Duration,
    /// Longest a late event waits for ClickHouse.
    pub look_up_wait_max: Duration,
    /// Longest an answer waits for ClickHouse.
    pub stored_wait_max: Duration,
}

/// The verdicts on a batch.
#[derive(Clone, Debug)]
pub struct BatchVerdicts {
    /// One for each event, in order.
    pub verdicts: Vec<Verdict>,
    /// How many of each.
    pub counts: VerdictCounts,
}

/// A batch on its way to the disk. It gets there whether or not anybody waits
/// for it.
pub struct Submission {
    task: JoinHandle<Result<BatchVerdicts, Error>>,
}

impl Submission {
    /// Waits for the verdicts.
    pub async fn verdicts(self) -> Result<BatchVerdicts, Error> {
        self.task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a batch's task failed");
            Err(Error::internal())
        })
    }
}

/// Accepts batches from transports: validates, deduplicates, logs and acknowledges them.
pub struct Pipeline {
    settings: PipelineSettings,
    clock: Arc<ArrivalClock>,
    fingerprinter: Fingerprinter,
    index: Arc<Index>,
    log: Arc<dyn EventLog>,
    store: Arc<dyn EventStore>,
    types: Arc<EventTypes>,
    retention: Arc<Retention>,
    outcomes: Outcomes,
    limits: Arc<RateLimits>,
    bytes_in_flight: Arc<FairSemaphore>,
    buffer_refusals: Arc<RecentRefusal>,
    parked_ids: Arc<ParkedIds>,
}

impl Pipeline {
    /// A pipeline into this log, checking against these types, this index and,
    /// where that cannot decide, this store.
    #[expect(clippy::too_many_arguments, reason = "every part is another")]
    pub fn new(
        settings: PipelineSettings,
        clock: Arc<ArrivalClock>,
        fingerprinter: Fingerprinter,
        index: Arc<Index>,
        log: Arc<dyn EventLog>,
        store: Arc<dyn EventStore>,
        types: Arc<EventTypes>,
        retention: Arc<Retention>,
        outcomes: Outcomes,
        limits: Arc<RateLimits>,
    ) -> Self {
        let shares = Shares::new(settings.bytes_in_flight_max.into(), settings.share_percent);
        let bytes_in_flight = FairSemaphore::new(shares);
        let parked_ids = Arc::new(ParkedIds::new(fingerprinter));
        Self {
            settings,
            clock,
            fingerprinter,
            index,
            log,
            store,
            types,
            retention,
            outcomes,
            limits,
            bytes_in_flight,
            buffer_refusals: Arc::default(),
            parked_ids,
        }
    }

    /// Refuses a batch of too many events: worth asking before drafts are made
    /// of them.
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn check_count(&self, events: usize) -> Result<(), Error> {
        let max = self.settings.batch_events_max;
        if events <= max {
            return Ok(());
        }
        Err(Error::too_large(format!("a batch may hold at most {max} events; this one has {events}")))
    }

    /// Whether batches were refused for want of room among `bytes_in_flight_max` in the last seconds.
    pub fn buffer_refusals(&self) -> Arc<RecentRefusal> {
        Arc::clone(&self.buffer_refusals)
    }

    /// Takes a batch of about `bytes` bytes as far as its place in the log's
    /// line, which is the order of the calls. The verdicts follow.
    ///
    /// # Errors
    /// `TooLarge` for too many events; `Exhausted` when a bound is reached;
    /// `Limited` when its new events are over a rate limit; `Unavailable` when the
    /// time is in doubt. Nothing of the batch has happened then.
    pub async fn submit(
        &self,
        org_id: &OrgId,
        drafts: Vec<EventDraft<'_>>,
        bytes: usize,
        durability: Durability,
    ) -> Result<Submission, Error> {
        self.check_count(drafts.len())?;
        self.judge_time()?;
        let permit = self.buffer_permit(org_id, bytes).await?;
        let watched = self.outcomes.wanted().then(|| self.outcomes_of(org_id, &drafts));
        let users = self.users(&drafts);
        let events = drafts.len() as u64;
        let arrivals = self.clock.batch_arrivals(events);
        trace::note_arrivals(arrivals.first(), events);
        let decided = self.deduplicate_measured(org_id, drafts, bytes, arrivals.first()).await?;
        let charge = self.limits.charge(org_id, decided.new_events(), decided.users_of_new(&users))?;
        let DecidedBatch { claims, mut verdicts, shared, mut duplicates, frame } = decided;
        let append = frame.map(|frame| self.log.append(frame));

        let (index, log, outcomes) = (Arc::clone(&self.index), Arc::clone(&self.log), self.outcomes.clone());
        let parked_ids = Arc::clone(&self.parked_ids);
        let (org_id, stored_wait_max) = (org_id.clone(), self.settings.stored_wait_max);
        let finish = async move {
            let mut own = None;
            if let Some(append) = append {
                // Dropping the claims on an error gives the ids back.
                let ordinal = append.await.unwrap_or(Err(AppendError::Shut)).map_err(refusal)?;
                claims.settle(ordinal);
                own = Some(ordinal);
                charge.keep();
            } else {
                drop(claims);
            }
            drop(arrivals); // They are in the log.
            drop(permit);
            for shared in shared {
                duplicates.extend(shared.resolve(&index, &mut verdicts).await);
            }
            if durability == Durability::Stored {
                AwaitedSegments { own, duplicates }.stored(&*log, &parked_ids, stored_wait_max).await?;
            }
            let mut counts = VerdictCounts::default();
            verdicts.iter().for_each(|verdict| counts.add(verdict));
            let watched = with_verdicts(watched.unwrap_or_default(), &verdicts);
            outcomes.report(&org_id, counts, &watched);
            Ok(BatchVerdicts { verdicts, counts })
        };
        // Its log lines are the call's.
        Ok(Submission { task: tokio::spawn(finish.in_current_span()) })
    }

    /// Which of these ids are known in memory: whatever comes with such an id is not new. Of the others, nothing is said.
    pub fn are_known<'a>(&self, org_id: &OrgId, event_ids: impl Iterator<Item = &'a str>) -> Vec<bool> {
        let mut bytes = Vec::new();
        let is_known = |event_id: &str| {
            bytes.clear();
            event_row::put_string(&mut bytes, org_id.as_str());
            event_row::put_string(&mut bytes, event_id);
            self.index.is_known(self.fingerprinter.id(&bytes))
        };
        event_ids.map(is_known).collect()
    }

    /// What is wrong with events, as far as they can be judged one by one: one answer for each.
    ///
    /// # Errors
    /// `Unavailable` when the time is in doubt.
    pub fn check(&self, org_id: &OrgId, drafts: &[EventDraft<'_>]) -> Result<Vec<Option<Rejection>>, Error> {
        let now = self.judge_time()?;
        let fault = |draft: &EventDraft<'_>| Event::parse(org_id, draft.clone(), &self.settings.limits, now).err();
        Ok(drafts.iter().map(fault).collect())
    }

    /// Now, for judging events by their times.
    fn judge_time(&self) -> Result<Timestamp, Error> {
        self.clock.judge().map_err(|doubt| Error::clock_in_doubt(&doubt))
    }

    /// The user of each event, when users have limits.
    fn users<'a>(&self, drafts: &[EventDraft<'a>]) -> Vec<&'a str> {
        if self.limits.count_users() { drafts.iter().map(|draft| draft.user_id).collect() } else { Vec::new() }
    }

    /// Bounds the memory of all batches together, and of those of one
    /// organization.
    async fn buffer_permit(&self, org_id: &OrgId, bytes: usize) -> Result<FairPermit, Error> {
        let tenant = Tenant::from(org_id);
        let permit = self.bytes_in_flight.acquire(&tenant, bytes.max(BATCH_BYTES_MIN) as u64);
        match tokio::time::timeout(self.settings.wait_max, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => {
                self.buffer_refusals.note();
                let PipelineSettings { bytes_in_flight_max: max, share_percent, .. } = self.settings;
                let message = format!(
                    "more than {max} bytes of events, or {share_percent} % of them of this organization, are waiting \
                     for the log; send slower"
                );
                Err(Error::exhausted(message, RETRY_AFTER))
            }
        }
    }

    /// The same as [`Self::deduplicate`], with its time.
    async fn deduplicate_measured(
        &self,
        org_id: &OrgId,
        drafts: Vec<EventDraft<'_>>,
        bytes: usize,
        first_arrival: u64,
    ) -> Result<DecidedBatch, Error> {
        let (begin, events) = (Instant::now(), drafts.len() as u64);
        let count = || i64::try_from(events).unwrap_or(i64::MAX);
        let span = child_span!("deduplicate", tallyhouse.batch.events = count());
        let decided = self.deduplicate(org_id, drafts, bytes, first_arrival).instrument(span).await;
        instruments::deduplicated(events, begin.elapsed());
        decided
    }

    /// Validates and encodes every event, claims them, and asks ClickHouse about
    /// those that the index cannot decide about.
    async fn deduplicate(
        &self,
        org_id: &OrgId,
        drafts: Vec<EventDraft<'_>>,
        bytes: usize,
        first_arrival: u64,
    ) -> Result<DecidedBatch, Error> {
        let mut batch = Batch::new(Arc::clone(&self.index), self.fingerprinter, drafts.len(), bytes);
        let now = self.judge_time()?;
        let types = self.types.of(org_id);
        let deleted = self.retention.deleted();
        let parse = |draft| {
            let event = Event::parse(org_id, draft, &self.settings.limits, now)?;
            deleted.find(event.occurred_at()).map_or(Ok(event), |period| Err(retention::too_old(period)))
        };
        let events: Vec<Result<Event<'_>, Rejection>> = drafts.into_iter().map(parse).collect();
        let checked = match &types {
            Some(types) => self.types.check(org_id, types, events.iter().flatten()).await,
            None => Vec::new(),
        };
        let mut checked = checked.into_iter();
        for (event, arrival) in events.into_iter().zip(first_arrival..) {
            let event = match event {
                Ok(event) => event,
                Err(rejection) => {
                    batch.reject(Verdict::Rejected(rejection));
                    continue;
                }
            };
            // Nothing is asked of an organization's events that has no types.
            match checked.next().unwrap_or(Checked::Version(0)) {
                Checked::Version(version) => batch.add(&event.checked_against(version), arrival),
                Checked::Unwanted(rejection) => batch.add_unwanted(&event, rejection),
                Checked::Undecided => batch.reject(Verdict::Undecided),
            }
        }
        batch.claim().await;
        if batch.is_refused() {
            let message = "memory is full of ids that the id ledger has not taken yet (index_ids_max)";
            return Err(Error::exhausted(message, RETRY_AFTER));
        }
        self.decide_late(org_id, &mut batch).await;
        Ok(batch.decided())
    }

    /// Asks ClickHouse about events that the ledger cannot decide about. What it does not answer in time
    /// stays undecided.
    async fn decide_late(&self, org_id: &OrgId, batch: &mut Batch<'_>) {
        let keys = batch.late_keys();
        if keys.is_empty() {
            return;
        }
        let looked_up = tokio::time::timeout(self.settings.look_up_wait_max, self.store.look_up(org_id, &keys)).await;
        let stored = looked_up.unwrap_or_else(|_| Err(StoreError::Retry("the look-up took too long".to_owned())));
        if let Err(error) = &stored {
            tracing::warn!(%error, events = keys.len(), "events could not be looked up");
        }
        batch.resolve_late(stored.as_deref().ok());
    }

    /// What will be reported, but for the verdicts.
    fn outcomes_of(&self, org_id: &OrgId, drafts: &[EventDraft<'_>]) -> Vec<Outcome> {
        let at = self.clock.now();
        let outcomes_of = |draft: &EventDraft<'_>| Outcome {
            org_id: org_id.clone(),
            at,
            event_id: draft.event_id.to_owned(),
            event_type: draft.event_type.to_owned(),
            campaign_id: draft.campaign_id.to_owned(),
            verdict: Verdict::Accepted,
        };
        drafts.iter().map(outcomes_of).collect()
    }
}

fn with_verdicts(outcomes: Vec<Outcome>, verdicts: &[Verdict]) -> Vec<Arc<Outcome>> {
    outcomes
        .into_iter()
        .zip(verdicts)
        .map(|(outcome, verdict)| Arc::new(Outcome { verdict: verdict.clone(), ..outcome }))
        .collect()
}

/// Why the log refused, for the caller. Nothing of the batch was taken.
fn refusal(error: AppendError) -> Error {
    match error {
        AppendError::Full { .. } => Error::exhausted(error.to_string(), RETRY_AFTER),
        AppendError::DiskReserve { .. } => Error::exhausted(error.to_string(), RETRY_AFTER),
        AppendError::DiskFull => Error::exhausted("the service's disk is full", RETRY_AFTER),
        AppendError::Io(_) => Error::unavailable("the log cannot be written", RETRY_AFTER),
        AppendError::Shut => Error::unavailable("the service is shutting down", RETRY_AFTER),
    }
}
