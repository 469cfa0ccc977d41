//! The task that owns the state of an engine: it reads the source, calls the handler and writes to the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lane::Refused;
use super::results::{Dirty, Refusal};
use super::sequencer::{Millis, Pending, Sequencer};
use super::window::Window;
use super::{Clock, Command, EngineBounds};
use crate::domain::{LaneKey, LetterNumber, Position, Settlement, SubscriptionStatus};
use crate::handler::{Delivery, Handler, HandlerShape, Outcome};
use crate::source::{EventSource, SourceBatch, SourceError};
use crate::store::{Commit, Cursor, DeliveryStore, LaneRecord, StoreError, StoredEvent, SubscriptionRecord};

/// Calls at a time of a handler that takes several users at once.
const BATCHES_IN_FLIGHT_MAX: usize = 2;
/// The first and the longest wait after the handler, the source or the store was not available.
const HOLD_MIN: Duration = Duration::from_millis(100);
const HOLD_MAX: Duration = Duration::from_secs(5);
/// Shortest time between two commits where no user waits for them.
const COMMIT_LINGER: Duration = Duration::from_millis(25);
/// Time between two records of where to read on, when nothing of what was read is to be delivered.
const RESUME_LINGER: Duration = Duration::from_secs(1);
/// Events that are put into the store at a time, to make room in the window.
const SPILL_EVENTS: usize = 1_024;
/// Longest that the oldest event of the window waits before that, when nearly as many users are served as may be.
const SPILL_AFTER: Millis = 2_000;
/// Lanes that are kept in memory though they have nothing to do.
const IDLE_LANES_MAX: usize = 100_000;
/// When nothing else is due, the state is looked at again.
const IDLE_LOOK: Duration = Duration::from_secs(60);

/// Events of one user that are out.
pub(super) type Run = (LaneKey, Vec<Pending>);

/// A step of reading the source.
pub(super) enum Intake {
    Read(Result<SourceBatch, SourceError>),
    Loaded(SourceBatch, Result<Vec<(LaneKey, LaneRecord)>, StoreError>),
}

/// A commit that is recorded, or one that could not be.
pub(super) type Written = Result<Arc<Commit>, Arc<Commit>>;

/// What a task in flight ends with.
pub(super) enum Ended {
    Delivered(Vec<Vec<Outcome>>),
    Refused(Vec<Refusal>, Result<Vec<Settlement>, String>),
}

/// The task of one subscription's engine, which owns its state.
pub(super) struct Driver {
    pub(super) subscription: SubscriptionRecord,
    pub(super) bounds: EngineBounds,
    pub(super) source: Arc<dyn EventSource>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) store: Arc<DeliveryStore>,
    pub(super) clock: Clock,
    pub(super) shape: HandlerShape,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: CancellationToken,
    pub(super) started: Instant,
    pub(super) sequencer: Sequencer,
    pub(super) window: Window,
    /// The lane of each event that has not ended.
    pub(super) by_id: HashMap<String, LaneKey>,
    pub(super) in_flight: JoinSet<Ended>,
    pub(super) out: HashMap<Id, Vec<Run>>,
    pub(super) is_refusing: bool,
    pub(super) refusals: Vec<Refusal>,
    pub(super) intake: Option<BoxFuture<'static, Intake>>,
    /// Whether that reads the source.
    pub(super) is_reading: bool,
    pub(super) dirty: Dirty,
    pub(super) committing: Option<BoxFuture<'static, Written>>,
    /// What is in the commit that is under way.
    pub(super) committed: Dirty,
    pub(super) committed_at: Instant,
    /// From where the source would be read again, as the store has it.
    pub(super) recorded: Position,
    /// Pieces of the source that former runs missed.
    pub(super) missed_before: u64,
    /// How many missed ones the store has.
    pub(super) recorded_missed: u64,
    pub(super) next_letter: LetterNumber,
    pub(super) letters: u64,
    /// How many of them the store has.
    pub(super) recorded_letters: u64,
    /// Nothing is handed out before: the handler was not available.
    pub(super) hold_until: Option<Instant>,
    pub(super) holds: u32,
    pub(super) handler_error: String,
    pub(super) read_after: Option<Instant>,
    pub(super) holders: Vec<(Option<oneshot::Sender<()>>, oneshot::Receiver<()>)>,
    pub(super) counts: SubscriptionStatus,
    /// Users that are to be erased once nothing of them is out.
    pub(super) erasing: Vec<(LaneKey, oneshot::Sender<usize>)>,
}

impl Driver {
    pub(super) fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) async fn run(mut self) {
        let mut stopping_since: Option<Instant> = None;
        loop {
            self.step(stopping_since.is_some());
            let is_over = stopping_since.is_some_and(|since| since.elapsed() >= self.bounds.stop_wait);
            let is_quiet = self.in_flight.is_empty() && self.committing.is_none() && self.dirty.is_empty();
            if stopping_since.is_some() && (is_quiet || is_over) {
                break;
            }
            let wake_at = self.wake_at(stopping_since);
            tokio::select! {
                () = self.stop.cancelled(), if stopping_since.is_none() => stopping_since = Some(Instant::now()),
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => stopping_since = stopping_since.or(Some(Instant::now())),
                },
                Some(ended) = self.in_flight.join_next_with_id() => {
                    self.ended(ended);
                    // One step for all that have ended meanwhile.
                    while let Some(ended) = self.in_flight.try_join_next_with_id() {
                        self.ended(ended);
                    }
                }
                step = maybe(&mut self.intake) => {
                    self.intake = None;
                    self.take_in(step);
                }
                written = maybe(&mut self.committing) => {
                    self.committing = None;
                    self.committed(written);
                }
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
        self.in_flight.shutdown().await;
    }

    /// Does what can be done without waiting.
    fn step(&mut self, is_stopping: bool) {
        let now = self.now();
        self.sequencer.tick(now, self.is_at_end());
        self.holders
            .retain_mut(|(_, released)| matches!(released.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        if self.sequencer.is_full() {
            self.sequencer.relieve();
        }
        if !self.in_flight.is_empty() && (is_stopping || self.subscription.settings.is_paused) {
            self.handler.recall();
        }
        self.pause_when_full_of_letters();
        let is_held = self.hold_until.is_some_and(|until| until > Instant::now());
        if !is_stopping && !is_held && self.holders.is_empty() {
            self.refuse();
            if !self.subscription.settings.is_paused {
                self.hand_out(now);
            }
        }
        self.erase();
        self.spill(now);
        self.commit(is_stopping);
        if !is_stopping {
            self.read();
        }
        if self.in_flight.is_empty() && self.committing.is_none() && self.dirty.is_empty() {
            for (reply, _) in &mut self.holders {
                // Whoever asked may have gone: then it is found to be released.
                let _ = reply.take().map(|reply| reply.send(()));
            }
        }
    }

    fn wake_at(&self, stopping_since: Option<Instant>) -> Instant {
        let now = Instant::now();
        let timer = self.sequencer.next_timer().map(|at| self.started + Duration::from_millis(at));
        let linger = (!self.dirty.is_empty()).then(|| self.committed_at + COMMIT_LINGER);
        let ends = stopping_since.map(|since| since + self.bounds.stop_wait);
        let is_recalling =
            !self.in_flight.is_empty() && (stopping_since.is_some() || self.subscription.settings.is_paused);
        let looks = is_recalling || !self.holders.is_empty() || self.sequencer.has_overdue();
        let look = looks.then(|| now + HOLD_MIN);
        let resume = self.has_moved().then(|| self.committed_at + RESUME_LINGER);
        let spill = self.spill_at().map(|at| self.started + Duration::from_millis(at));
        let dates = [timer, linger, ends, look, resume, spill, self.hold_until, self.read_after];
        let next = dates.into_iter().flatten().filter(|at| *at > now).min();
        next.unwrap_or(now + IDLE_LOOK).min(now + IDLE_LOOK)
    }

    /// Hands out what is ready, as much as may be in flight.
    fn hand_out(&mut self, now: Millis) {
        self.hold_until = None;
        let HandlerShape { users_max, events_per_user_max, .. } = self.shape;
        let concurrency = self.subscription.settings.concurrency;
        let in_flight_max = if users_max == 1 { concurrency } else { BATCHES_IN_FLIGHT_MAX };
        while self.out.len() < in_flight_max && self.sequencer.has_ready() {
            let mut runs = Vec::new();
            while runs.len() < users_max
                && let Some(run) = self.sequencer.take_run(events_per_user_max, now)
            {
                runs.push(run);
            }
            if runs.is_empty() {
                return;
            }
            let deliveries = runs.iter().map(|run| self.deliveries(run)).collect();
            let handler = Arc::clone(&self.handler);
            let task = self.in_flight.spawn(async move { Ended::Delivered(handler.deliver(deliveries).await) });
            self.out.insert(task.id(), runs);
        }
    }

    fn deliveries(&self, (key, run): &Run) -> Vec<Delivery> {
        let gaps = Arc::new(self.sequencer.gaps(key));
        let attempts_max = self.subscription.settings.attempts_max;
        let delivery = |pending: &Pending| Delivery {
            event: Arc::clone(&pending.event),
            attempt: pending.attempts + 1,
            is_last_attempt: pending.attempts + 1 >= attempts_max,
            is_replay: pending.is_replay,
            gaps: Arc::clone(&gaps),
            traceparent: pending.event.traceparent.clone(),
        };
        run.iter().map(delivery).collect()
    }

    /// Has the handler note what was refused, one call at a time.
    fn refuse(&mut self) {
        if self.is_refusing || self.refusals.is_empty() || self.letters >= self.bounds.letters_max {
            return;
        }
        self.is_refusing = true;
        let refusals = std::mem::take(&mut self.refusals);
        let handler = Arc::clone(&self.handler);
        self.in_flight.spawn(async move {
            let letters: Vec<_> = refusals.iter().map(|refusal| refusal.letter.clone()).collect();
            let noted = handler.refuse(&letters).await;
            Ended::Refused(refusals, noted)
        });
    }

    fn ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        match ended {
            Ok((id, Ended::Delivered(answers))) => {
                let runs = self.out.remove(&id).unwrap_or_default();
                self.settle(runs, answers);
            }
            Ok((_, Ended::Refused(refusals, noted))) => {
                self.is_refusing = false;
                self.settle_refusals(refusals, noted);
            }
            Err(error) => {
                tracing::error!(%error, "a handler failed without an answer");
                let runs = self.out.remove(&error.id()).unwrap_or_default();
                let outcome = Outcome::Unavailable { error: error.to_string() };
                let answers = runs.iter().map(|_| vec![outcome.clone()]).collect();
                self.settle(runs, answers);
            }
        }
    }

    /// The handler was not available: it is left alone for a while, longer each time.
    pub(super) fn hold(&mut self, error: String) {
        if self.handler_error.is_empty() {
            tracing::warn!(subscription = self.subscription.name, error, "the handler is not available; events wait");
        }
        self.handler_error = error;
        if self.hold_until.is_none() {
            let wait = HOLD_MIN.saturating_mul(1 << self.holds.min(6)).min(HOLD_MAX);
            self.hold_until = Some(Instant::now() + wait);
            self.holds += 1;
        }
    }

    /// The handler has answered.
    pub(super) fn is_available(&mut self) {
        if self.subscription.settings.is_paused {
            return; // Why it is paused stays until it is resumed.
        }
        if !self.handler_error.is_empty() {
            tracing::info!(subscription = self.subscription.name, "the handler is available again");
        }
        self.handler_error.clear();
        self.holds = 0;
    }

    /// Puts the oldest events that have not ended into the store, so that the source need not keep them and others are read.
    fn spill(&mut self, now: Millis) {
        if !self.dirty.stored.is_empty() || self.spill_at().is_none_or(|at| at > now) {
            return;
        }
        self.store_open(SPILL_EVENTS);
    }

    /// Has the store keep the oldest events that it does not have and that have not ended, at most so many.
    pub(super) fn store_open(&mut self, events_max: usize) {
        for (position, event) in self.window.oldest_open(events_max) {
            self.window.settle(position);
            let stored = StoredEvent { position, event, attempts: 0, error: String::new(), is_replay: false };
            self.dirty.stored.push(stored);
        }
    }

    /// When room is to be made in the window: never while less than half of it is used, or as many users are served as may
    /// be; at once when less than half of them are; and later, the more of them are. Until then, most events of a backlog
    /// end without having been stored.
    fn spill_at(&self) -> Option<Millis> {
        if self.window.len() < self.bounds.window_events_max / 2 {
            return None;
        }
        let served: usize = self.out.values().map(Vec::len).sum();
        let served = served + self.dirty.release.len() + self.committed.release.len();
        let users_max = match self.shape.users_max {
            1 => self.subscription.settings.concurrency,
            users_max => users_max.saturating_mul(BATCHES_IN_FLIGHT_MAX),
        };
        let over_half = (2 * served).saturating_sub(users_max) as u64;
        let wait = SPILL_AFTER.saturating_mul(over_half) / (users_max.max(1) as u64);
        self.window.oldest_read_at().filter(|_| served < users_max).map(|read_at| read_at + wait)
    }

    /// Begins to write what has happened, unless that is under way.
    fn commit(&mut self, is_stopping: bool) {
        let lingers = self.committed_at.elapsed() < COMMIT_LINGER && !is_stopping && !self.dirty.is_awaited();
        let has_moved = self.has_moved() && (is_stopping || self.committed_at.elapsed() >= RESUME_LINGER);
        if self.committing.is_some() || lingers || (self.dirty.is_empty() && !has_moved) {
            return;
        }
        let mut dirty = std::mem::take(&mut self.dirty);
        let commit = Commit {
            cursor: Cursor { missed: self.missed(), ..self.window.cursor() },
            lanes: self.sequencer.take_changed(),
            stored: std::mem::take(&mut dirty.stored),
            removed: std::mem::take(&mut dirty.removed),
            letters: std::mem::take(&mut dirty.letters),
            settlements: dirty.settlements.records(),
            settled_again: std::mem::take(&mut dirty.settled_again),
            settlements_max: self.bounds.settlements_max,
            subscription: dirty.subscription.take(),
            erased: std::mem::take(&mut dirty.erased),
        };
        self.committed = Dirty { letters_after: self.letters, ..dirty };
        self.committed_at = Instant::now();
        self.write(Arc::new(commit), Duration::ZERO);
    }

    /// Pieces of the source that were deleted before they were read, those of former runs included.
    pub(super) fn missed(&self) -> u64 {
        self.missed_before.saturating_add(self.source.missed())
    }

    /// Whether the store lacks how far the source was read.
    fn has_moved(&self) -> bool {
        self.window.resume() != self.recorded || self.missed() != self.recorded_missed
    }

    pub(super) fn write(&mut self, commit: Arc<Commit>, after: Duration) {
        let (store, id) = (Arc::clone(&self.store), self.subscription.id);
        self.committing = Some(Box::pin(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            match store.commit(id, Arc::clone(&commit)).await {
                Ok(()) => Ok(commit),
                Err(_) => Err(commit), // The store has said why.
            }
        }));
    }

    fn committed(&mut self, written: Written) {
        let commit = match written {
            Ok(commit) => commit,
            Err(commit) => {
                // Nothing goes on until it is recorded, but for what does not need it.
                self.write(commit, HOLD_MAX);
                return;
            }
        };
        let now = self.now();
        let Cursor { resume, missed, .. } = commit.cursor;
        (self.recorded, self.recorded_missed) = (resume, missed);
        let Dirty { release, replies, letters_after, .. } = std::mem::take(&mut self.committed);
        self.recorded_letters = letters_after;
        for key in release {
            self.sequencer.release(&key, now);
        }
        for (reply, count) in replies {
            reply(count);
        }
        self.source.release(resume);
        if self.sequencer.lanes() > self.sequencer.waiting() + IDLE_LANES_MAX && self.intake.is_none() {
            self.sequencer.forget_idle();
        }
    }

    /// Reads on, if there is room.
    fn read(&mut self) {
        let is_full = self.window.len() >= self.bounds.window_events_max
            || self.sequencer.is_full()
            || self.refusals.len() >= self.bounds.waiting_max;
        self.counts.is_full = is_full;
        let is_early = self.read_after.is_some_and(|after| after > Instant::now());
        if self.intake.is_some() || is_full || is_early {
            return;
        }
        self.is_reading = true;
        let (source, from, max) = (Arc::clone(&self.source), self.window.next(), self.bounds.read_events_max);
        self.intake = Some(Box::pin(async move { Intake::Read(source.read(from, max).await) }));
    }

    /// Whether all that the source has was read.
    fn is_at_end(&self) -> bool {
        self.is_reading && self.source.catching_up_ms().is_none() && self.source.is_at_end()
    }

    fn take_in(&mut self, step: Intake) {
        self.is_reading = false;
        match step {
            Intake::Read(Err(error)) => {
                tracing::warn!(%error, subscription = self.subscription.name, "reading on later");
                self.read_after = Some(Instant::now() + HOLD_MAX / 5);
            }
            Intake::Read(Ok(batch)) => self.load_lanes(batch),
            Intake::Loaded(_, Err(error)) => {
                tracing::warn!(%error, "the records of users cannot be read; reading on later");
                self.read_after = Some(Instant::now() + HOLD_MAX / 5);
            }
            Intake::Loaded(batch, Ok(lanes)) => {
                for (key, record) in lanes {
                    self.sequencer.load(key, record);
                }
                self.offer_all(batch);
            }
        }
    }

    /// Reads the records of users that are not in memory, before their events are offered.
    fn load_lanes(&mut self, batch: SourceBatch) {
        let keys = batch.events.iter().filter_map(|sourced| sourced.event.as_ref());
        let keys = keys.filter(|event| self.subscription.settings.filter.allows(event)).map(LaneKey::of);
        let mut unknown: Vec<LaneKey> =
            keys.filter(|key| !key.is_anonymous() && !self.sequencer.has_lane(key)).collect();
        if unknown.is_empty() {
            self.offer_all(batch);
            return;
        }
        unknown.sort_unstable();
        unknown.dedup();
        let (store, id) = (Arc::clone(&self.store), self.subscription.id);
        self.intake = Some(Box::pin(async move {
            let lanes = tokio::task::spawn_blocking(move || {
                let records = store.lanes(id, &unknown)?;
                Ok(unknown.into_iter().zip(records).collect())
            });
            let lanes = lanes.await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())));
            Intake::Loaded(batch, lanes)
        }));
    }

    fn offer_all(&mut self, batch: SourceBatch) {
        let now = self.now();
        for sourced in batch.events {
            let Some(event) = sourced.event.filter(|event| self.subscription.settings.filter.allows(event)) else {
                continue;
            };
            if self.window.has_ended(sourced.position) {
                continue;
            }
            let event = Arc::new(event);
            self.window.open(sourced.position, Arc::clone(&event), now);
            let (position, error) = (sourced.position, String::new());
            self.offer(Pending { position, event, attempts: 0, error, is_replay: false, read_at: now }, now);
        }
        self.window.advance(batch.next);
    }

    pub(super) fn offer(&mut self, pending: Pending, now: Millis) {
        let key = LaneKey::of(&pending.event);
        self.by_id.insert(pending.event.id.clone(), key.clone());
        let refused = self.sequencer.offer(key, pending, now);
        self.note_refused(refused);
    }

    /// These are to become dead letters, once the handler has noted it.
    pub(super) fn note_refused(&mut self, refused: impl IntoIterator<Item = Refused>) {
        for Refused { pending, reason, error } in refused {
            let letter = self.letter(&pending, reason, error, self.clock.now_ms());
            self.refusals.push(Refusal { pending, letter });
        }
    }

    fn obey(&mut self, command: Command) {
        // Whoever asked may have gone.
        match command {
            Command::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Command::Event(id, reply) => {
                let _ = reply.send(self.event(&id));
            }
            Command::User(key, reply) => {
                let _ = reply.send(self.sequencer.user(&key));
            }
            Command::Settings(reply) => {
                let _ = reply.send(self.subscription.settings.clone());
            }
            Command::Update(settings, reply) => self.update(*settings, reply),
            Command::PauseUser(key, is_paused, reply) => self.pause_user(key, is_paused, reply),
            Command::Replay(letters, reply) => self.replay(letters, reply),
            Command::Remove(numbers, reply) => self.remove_letters(&numbers, reply),
            Command::Erase(key, reply) => self.begin_erasure(key, reply),
            Command::Hold(reply, released) => self.holders.push((Some(reply), released)),
        }
    }
}

/// Waits for a future, if there is one.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
