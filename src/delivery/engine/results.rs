//! Evaluates the results of events that were handed out, and collects what is to be recorded of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::driver::{Driver, Run};
use super::sequencer::Pending;
use crate::domain::{
    DeadLetter, DeadLetterReason, EventState, EventStatus, FinalOutcome, LaneKey, LetterNumber, Position, Settlement,
    SubscriptionSettings,
};
use crate::handler::Outcome;
use crate::store::{LetterChange, StoredEvent, SubscriptionRecord};

/// Most characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 500;
/// Longest wait that a handler can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3_600);

/// An event that becomes a dead letter without having been tried.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) pending: Pending,
    pub(super) letter: DeadLetter,
}

/// Says how many, once that is recorded.
type CountReply = Box<dyn FnOnce(usize) + Send>;

/// What is not recorded yet.
#[derive(Default)]
pub(super) struct Dirty {
    pub(super) stored: Vec<StoredEvent>,
    pub(super) removed: Vec<Position>,
    pub(super) letters: Vec<LetterChange>,
    /// How many letters there are once all this is recorded.
    pub(super) letters_after: u64,
    pub(super) settlements: Settlements,
    /// Events of these that had ended before.
    pub(super) settled_again: Vec<String>,
    /// The subscription, when its settings have changed.
    pub(super) subscription: Option<Box<SubscriptionRecord>>,
    /// Lanes that go on once all this is recorded.
    pub(super) release: Vec<LaneKey>,
    pub(super) replies: Vec<(CountReply, usize)>,
    /// Numbers of letters that are gone.
    pub(super) gone: HashSet<LetterNumber>,
    /// Users that are erased.
    pub(super) erased: Vec<LaneKey>,
    /// Something else has changed: events have ended, or the records of lanes.
    pub(super) has_changed: bool,
}

/// Records of how events ended, in the order in which they did.
#[derive(Default)]
pub(super) struct Settlements {
    /// None where the event has a newer one.
    records: Arc<Vec<Option<Settlement>>>,
    /// Where in that order each event's record is.
    places: HashMap<String, usize>,
}

impl Settlements {
    fn add(&mut self, settlement: Settlement) {
        let records = Arc::make_mut(&mut self.records);
        let before = self.places.insert(settlement.event_id.clone(), records.len());
        if let Some(record) = before.and_then(|place| records.get_mut(place)) {
            *record = None;
        }
        records.push(Some(settlement));
    }

    pub(super) fn find(&self, event_id: &str) -> Option<&Settlement> {
        self.records.get(*self.places.get(event_id)?)?.as_ref()
    }

    /// Takes a user out of the records.
    pub(super) fn forget_user(&mut self, user_id: &str) {
        let records = Arc::make_mut(&mut self.records).iter_mut().flatten();
        for settlement in records.filter(|settlement| settlement.user_id == user_id) {
            settlement.user_id.clear();
            settlement.error.clear();
        }
    }

    pub(super) fn records(&self) -> Arc<Vec<Option<Settlement>>> {
        Arc::clone(&self.records)
    }
}

impl Dirty {
    pub(super) fn is_empty(&self) -> bool {
        !self.has_changed && self.stored.is_empty() && self.removed.is_empty() && self.letters.is_empty()
    }

    /// Whether somebody waits for the record.
    pub(super) fn is_awaited(&self) -> bool {
        !self.release.is_empty() || !self.replies.is_empty() || !self.stored.is_empty()
    }
}

impl Driver {
    /// Takes in what a call of the handler ended with.
    pub(super) fn settle(&mut self, runs: Vec<Run>, answers: Vec<Vec<Outcome>>) {
        let now = self.now();
        let mut answers = answers.into_iter();
        for (key, run) in runs {
            let has_ended = self.settle_run(&key, run, answers.next().unwrap_or_default());
            if has_ended && !self.shape.records_effects {
                self.dirty.release.push(key);
            } else {
                self.sequencer.release(&key, now);
            }
        }
    }

    /// Returns whether something is to be recorded.
    fn settle_run(&mut self, key: &LaneKey, run: Vec<Pending>, outcomes: Vec<Outcome>) -> bool {
        let mut run = run.into_iter();
        let mut outcomes = outcomes.into_iter();
        let mut is_changed = false;
        while let Some(mut pending) = run.next() {
            let outcome = outcomes.next().unwrap_or(Outcome::NotAttempted);
            let mut retry_at = (pending.attempts > 0).then(|| self.now());
            match outcome {
                Outcome::Done { processed_at_ms } => {
                    self.is_available();
                    self.counts.processed += 1;
                    let attempts = pending.attempts + 1;
                    let record = || settlement(&pending, FinalOutcome::Processed, processed_at_ms, attempts, "");
                    self.end(key, &pending, false, record);
                    is_changed = true;
                    continue;
                }
                Outcome::Already(settlement) => {
                    self.is_available();
                    let has_failed = settlement.outcome == FinalOutcome::Failed;
                    if has_failed {
                        pending.attempts = settlement.attempts;
                        let (error, at) = (settlement.error.clone(), settlement.processed_at_ms);
                        self.add_dead_letter(&pending, DeadLetterReason::HandlerFailed, error, at);
                    }
                    self.end(key, &pending, has_failed, || settlement);
                    is_changed = true;
                    continue;
                }
                Outcome::Failed { error, retry_after, failed_at_ms } => {
                    self.is_available();
                    is_changed = true;
                    pending.attempts += 1;
                    pending.error = error.chars().take(ERROR_CHARS_MAX).collect();
                    if pending.attempts >= self.subscription.settings.attempts_max {
                        let error = pending.error.clone();
                        let attempts = pending.attempts;
                        self.add_dead_letter(&pending, DeadLetterReason::HandlerFailed, error.clone(), failed_at_ms);
                        let record = || settlement(&pending, FinalOutcome::Failed, failed_at_ms, attempts, &error);
                        self.end(key, &pending, true, record);
                        continue;
                    }
                    self.counts.retries += 1;
                    retry_at = Some(self.retry_at(&pending, retry_after));
                    self.keep(&pending);
                }
                Outcome::NotAttempted => {}
                Outcome::Unavailable { error } => self.hold(error),
                Outcome::Disabled { error } => {
                    let name = &self.subscription.name;
                    tracing::error!(subscription = name, error, "the handler wants no more events; it is paused");
                    self.handler_error = error;
                    self.subscription.settings.is_paused = true;
                    self.keep_settings();
                }
            }
            let rest: Vec<Pending> = std::iter::once(pending).chain(run.by_ref()).collect();
            let refused = self.sequencer.put_back(key, rest, retry_at);
            self.note_refused(refused);
            break;
        }
        is_changed
    }

    fn retry_at(&self, pending: &Pending, retry_after: Option<Duration>) -> u64 {
        let wait = self.subscription.settings.backoff.wait(pending.attempts, rand::random());
        let wait = retry_after.map_or(wait, |asked| wait.max(asked.min(RETRY_AFTER_MAX)));
        self.now().saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))
    }

    /// Has the store keep an event with its attempts.
    fn keep(&mut self, pending: &Pending) {
        self.window.settle(pending.position);
        self.dirty.stored.push(StoredEvent {
            position: pending.position,
            event: Arc::clone(&pending.event),
            attempts: pending.attempts,
            error: pending.error.clone(),
            is_replay: pending.is_replay,
        });
    }

    /// With as many dead letters as there may be, nothing more is handed out until some are replayed or discarded.
    pub(super) fn pause_when_full_of_letters(&mut self) {
        let max = self.bounds.letters_max;
        if self.letters < max || self.subscription.settings.is_paused {
            return;
        }
        tracing::error!(subscription = self.subscription.name, max, "there are too many dead letters; it is paused");
        self.handler_error = format!("paused: there are {max} dead letters, as many as may be kept");
        self.subscription.settings.is_paused = true;
        self.keep_settings();
    }

    fn keep_settings(&mut self) {
        self.dirty.subscription = Some(Box::new(self.subscription.clone()));
        self.dirty.has_changed = true;
    }

    /// Other settings, from now on.
    pub(super) fn update(&mut self, settings: SubscriptionSettings, reply: oneshot::Sender<()>) {
        if self.subscription.settings.is_paused && !settings.is_paused {
            // Whatever it was, the handler is asked again.
            self.handler_error.clear();
            (self.hold_until, self.holds) = (None, 0);
        }
        if settings.filter != self.subscription.settings.filter {
            // Nothing that was read is read again, after a crash, by another filter.
            self.store_open(usize::MAX);
        }
        self.subscription.settings = settings;
        let SubscriptionSettings { order, gap_policy, .. } = self.subscription.settings;
        let now = self.now();
        let refused = self.sequencer.set_policy(order, gap_policy, now);
        self.note_refused(refused);
        self.keep_settings();
        self.reply_when_done(reply);
    }

    /// An event has ended. The record of that is made where such records are kept.
    fn end(&mut self, key: &LaneKey, pending: &Pending, has_failed: bool, record: impl FnOnce() -> Settlement) {
        self.counts.failed += u64::from(has_failed);
        self.sequencer.finish(key, pending, has_failed);
        self.end_refused(pending, pending.is_replay, record);
    }

    fn end_refused(&mut self, pending: &Pending, has_ended_before: bool, record: impl FnOnce() -> Settlement) {
        self.by_id.remove(&pending.event.id);
        if self.window.is_open(pending.position) {
            self.window.settle(pending.position);
        } else {
            self.dirty.removed.push(pending.position);
        }
        self.dirty.has_changed = true;
        if self.bounds.settlements_max > 0 {
            if has_ended_before {
                self.dirty.settled_again.push(pending.event.id.clone());
            }
            self.dirty.settlements.add(record());
        }
    }

    /// The next dead letter.
    pub(super) fn letter(&mut self, pending: &Pending, reason: DeadLetterReason, error: String, at: u64) -> DeadLetter {
        let number = self.next_letter;
        self.next_letter += 1;
        DeadLetter {
            number,
            event: Arc::clone(&pending.event),
            reason,
            error,
            attempts: pending.attempts,
            failed_at_ms: at,
            is_replay: pending.is_replay,
        }
    }

    fn add_dead_letter(&mut self, pending: &Pending, reason: DeadLetterReason, error: String, at: u64) {
        let letter = self.letter(pending, reason, error, at);
        tracing::warn!(
            subscription = self.subscription.name,
            event_id = letter.event.id,
            reason = letter.reason.as_str(),
            error = letter.error,
            attempts = letter.attempts,
            "an event is a dead letter"
        );
        self.letters += 1;
        self.dirty.letters.push(LetterChange::Put(letter));
    }

    /// Takes in whether the handler has noted what was refused.
    pub(super) fn settle_refusals(&mut self, refusals: Vec<Refusal>, noted: Result<Vec<Settlement>, String>) {
        let known = match noted {
            Ok(known) => known,
            Err(error) => {
                self.hold(error);
                self.refusals.splice(0..0, refusals);
                return;
            }
        };
        let mut known: HashMap<String, Settlement> =
            known.into_iter().map(|settlement| (settlement.event_id.clone(), settlement)).collect();
        for Refusal { pending, letter } in refusals {
            let at = letter.failed_at_ms;
            let failed = settlement(&pending, FinalOutcome::Failed, at, pending.attempts, &letter.error);
            let known = known.remove(&pending.event.id);
            let has_ended_before = pending.is_replay || known.is_some();
            let settlement = known.unwrap_or(failed);
            if settlement.outcome == FinalOutcome::Failed {
                self.counts.failed += 1;
                self.letters += 1;
                self.dirty.letters.push(LetterChange::Put(letter));
            }
            self.end_refused(&pending, has_ended_before, || settlement);
        }
    }

    pub(super) fn pause_user(&mut self, key: LaneKey, is_paused: bool, reply: oneshot::Sender<()>) {
        if !self.sequencer.has_lane(&key) {
            // Rare, and one read.
            let record = self.store.lanes(self.subscription.id, std::slice::from_ref(&key));
            if let Some(record) = record.ok().and_then(|mut records| records.pop()) {
                self.sequencer.load(key.clone(), record);
            }
        }
        self.sequencer.set_paused(&key, is_paused);
        self.reply_when_done(reply);
    }

    /// Puts dead letters into their lanes, before all others there.
    pub(super) fn replay(&mut self, letters: Vec<DeadLetter>, reply: oneshot::Sender<usize>) {
        let now = self.now();
        let letters: Vec<DeadLetter> = letters.into_iter().filter(|letter| self.take_letter(letter.number)).collect();
        let count = letters.len();
        for DeadLetter { number, event, .. } in letters {
            let key = LaneKey::of(&event);
            if !key.is_anonymous()
                && !self.sequencer.has_lane(&key)
                && let Ok(mut records) = self.store.lanes(self.subscription.id, std::slice::from_ref(&key))
            {
                self.sequencer.load(key, records.pop().unwrap_or_default());
            }
            let position = Position { segment: 0, row: number };
            let (attempts, error) = (0, String::new());
            let pending = Pending { position, event, attempts, error, is_replay: true, read_at: now };
            self.keep(&pending);
            self.offer(pending, now);
        }
        self.reply_when_recorded(reply, count);
    }

    pub(super) fn remove_letters(&mut self, numbers: &[LetterNumber], reply: oneshot::Sender<usize>) {
        let count = numbers.iter().filter(|number| self.take_letter(**number)).count();
        self.reply_when_recorded(reply, count);
    }

    /// Removes a letter, if it is there.
    fn take_letter(&mut self, number: LetterNumber) -> bool {
        let found = self.store.letters(self.subscription.id, number, 1);
        let is_there = found.is_ok_and(|letters| letters.first().is_some_and(|letter| letter.number == number));
        let is_gone = self.committed.gone.contains(&number) || !self.dirty.gone.insert(number);
        if !is_there || is_gone {
            return false;
        }
        self.letters = self.letters.saturating_sub(1);
        self.dirty.letters.push(LetterChange::Remove(number));
        true
    }

    fn reply_when_done(&mut self, reply: oneshot::Sender<()>) {
        self.dirty.has_changed = true;
        self.dirty.replies.push((
            Box::new(move |_| {
                // Whoever asked may have gone.
                let _ = reply.send(());
            }),
            0,
        ));
    }

    pub(super) fn reply_when_recorded(&mut self, reply: oneshot::Sender<usize>, count: usize) {
        self.dirty.has_changed = true;
        self.dirty.replies.push((
            Box::new(move |count| {
                // Whoever asked may have gone.
                let _ = reply.send(count);
            }),
            count,
        ));
    }
}

fn settlement(pending: &Pending, outcome: FinalOutcome, at: u64, attempts: u32, error: &str) -> Settlement {
    Settlement {
        event_id: pending.event.id.clone(),
        user_id: pending.event.user_id.clone(),
        event_type: pending.event.event_type.clone(),
        seq: pending.event.seq,
        outcome,
        processed_at_ms: at,
        attempts,
        error: error.to_owned(),
    }
}

impl From<Settlement> for EventStatus {
    fn from(settlement: Settlement) -> Self {
        Self {
            event_id: settlement.event_id.clone(),
            user_id: settlement.user_id.clone(),
            event_type: settlement.event_type.clone(),
            seq: settlement.seq,
            attempts: settlement.attempts,
            error: settlement.error.clone(),
            state: EventState::Settled(settlement),
        }
    }
}
