//! Ingest calls with an idempotency key: a repeated call takes effect once and returns the same answer.
//!
//! The steps of a call with a key, each durable before the next:
//!
//! 1. The use of the key, its time, and the hash of the body.
//! 2. The events. Events without an id get one that is derived from the organization, the key, the time of
//!    step 1 and their position.
//! 3. The verdicts. Then the caller is answered.
//!
//! If a call is interrupted at any step and repeated, the time of step 1 is found and the same ids are
//! derived: events that the first attempt logged are not counted again, and are answered as *accepted*.

mod record;
mod store;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use record::BodyHash;
pub use store::{KeyBounds, KeyStore, KeyStoreError};

use crate::clock::ArrivalClock;
use crate::domain::{Error, ErrorCode, EventDraft, OrgId, PropertiesDraft, Verdict, VerdictCounts};
use crate::health::RecentRefusal;
use crate::ingest::pipeline::{BatchVerdicts, Durability, Pipeline, Submission};
use store::KeyState;

/// The `retry_after` when the file cannot be read or written.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Time between two sweeps.
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
/// Time between two trials to write to a file that could not be written.
const TRIAL_PAUSE: Duration = Duration::from_secs(1);

/// An idempotency key: a text of 1 to 255 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Most characters of a key.
    pub const CHARS_MAX: usize = 255;
    /// A description of valid keys.
    pub const EXPECTED: &'static str = "must be 1 to 255 characters, none of them a control character";

    /// Parses a key; none if it is invalid.
    pub fn parse(text: &str) -> Option<Self> {
        let chars = text.chars().take(Self::CHARS_MAX + 1).count();
        let is_key = (1..=Self::CHARS_MAX).contains(&chars) && !text.chars().any(char::is_control);
        is_key.then(|| Self(text.to_owned()))
    }

    /// The key in the store, after the organization and a NUL, which no organization's id contains.
    fn of(&self, org_id: &OrgId) -> Vec<u8> {
        [org_id.as_str().as_bytes(), &[0], self.0.as_bytes()].concat()
    }
}

/// The answer to a call with a key.
#[derive(Clone, Debug)]
pub struct StoredResponse {
    /// The verdicts.
    pub verdicts: BatchVerdicts,
    /// The generated ids, by position; none where an event had an id.
    pub event_ids: Vec<Option<String>>,
    /// Whether this is the stored answer of an earlier call.
    pub is_replayed: bool,
}

/// A call with a key whose events are being logged. They are, and the response is stored, also if nobody
/// waits for it.
pub enum KeyedSubmission {
    /// The stored response of an earlier call.
    Replayed(StoredResponse),
    /// This call ingests its events.
    Running(JoinHandle<Result<StoredResponse, Error>>),
}

impl KeyedSubmission {
    /// Waits for the response.
    ///
    /// # Errors
    /// Those of [`Submission::verdicts`]; `Unavailable` when the response cannot
    /// be stored.
    pub async fn response(self) -> Result<StoredResponse, Error> {
        match self {
            Self::Replayed(response) => Ok(response),
            Self::Running(task) => task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call with an idempotency key failed");
                Err(Error::internal())
            }),
        }
    }
}

/// Keys with running calls, with the lock that concurrent calls wait for.
type RunningCalls = Mutex<HashMap<Vec<u8>, Arc<tokio::sync::Mutex<()>>>>;

/// Runs ingest calls that have an idempotency key. A repeated call returns the stored answer for 24
/// hours; a concurrent one waits for the first. Refuses new keys when the store is full or cannot
/// be written.
pub struct IdempotentIngest {
    store: KeyStore,
    clock: Arc<ArrivalClock>,
    running: RunningCalls,
    full: RecentRefusal,
    /// The file could not be read or written, and nothing has been written since.
    has_failed: AtomicBool,
}

/// The exclusive right to run a call with a key. Dropping it lets the next one run.
struct KeyLock {
    calls: Arc<IdempotentIngest>,
    key: Vec<u8>,
    alone: Option<OwnedMutexGuard<()>>,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        let mut running = self.calls.running.lock();
        self.alone = None;
        // Nobody can ask for it while the map is locked: what is not shared is not wanted.
        if running.get(&self.key).is_some_and(|place| Arc::strong_count(place) == 1) {
            running.remove(&self.key);
        }
    }
}

impl IdempotentIngest {
    /// Creates it for the keys in this store.
    pub fn new(store: KeyStore, clock: Arc<ArrivalClock>) -> Self {
        Self {
            store,
            clock,
            running: RunningCalls::default(),
            full: RecentRefusal::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Submits a batch like [`Pipeline::submit`], once for its key. The response follows. `body_hash` stands
    /// for the body of the call; by default it is a hash of its events and of the durability.
    ///
    /// # Errors
    /// As the pipeline's. `KeyReused` if an earlier call with the key had another body; `Exhausted`
    /// if the store is full; `Unavailable` if keys cannot be stored or the clock is not trusted.
    pub async fn submit(
        self: &Arc<Self>,
        pipeline: &Pipeline,
        (org_id, key): (&OrgId, &IdempotencyKey),
        body_hash: Option<BodyHash>,
        drafts: Vec<EventDraft<'_>>,
        bytes: usize,
        durability: Durability,
    ) -> Result<KeyedSubmission, Error> {
        let print = body_hash.unwrap_or_else(|| print(&drafts, durability));
        let place = self.place(key.of(org_id)).await;
        let now = self.clock.judge_micros().map_err(|doubt| Error::clock_in_doubt(&doubt))?;
        let begun = self.store.begin(place.key.clone(), print, now).await;
        let begun = begun.map_err(|error| self.cannot_keep(error))?;
        let (at, is_again) = match begun {
            KeyState::New { at } => {
                self.has_failed.store(false, Ordering::Relaxed);
                self.full.clear();
                (at, false)
            }
            KeyState::Again { at } => (at, true),
            KeyState::Answered { at, answer } => {
                let response = replayed(&place.key, at, &answer, &drafts)?;
                return Ok(KeyedSubmission::Replayed(response));
            }
            KeyState::OtherBody => return Err(Error::key_reused()),
            KeyState::Full { retry_after } => {
                self.full.note();
                return Err(Error::exhausted(
                    "there is no room for another idempotency key of this organization",
                    retry_after,
                ));
            }
        };
        let event_ids = event_ids(&place.key, at, &drafts);
        // They live as long as the ids that are made for them.
        let mut drafts: Vec<EventDraft<'_>> = drafts;
        for (draft, made) in drafts.iter_mut().zip(&event_ids) {
            draft.event_id = made.as_deref().unwrap_or(draft.event_id);
        }
        let call = Call { place, at, is_again };
        match pipeline.submit(org_id, drafts, bytes, durability).await {
            Ok(submission) => Ok(KeyedSubmission::Running(call.answer(submission, event_ids))),
            Err(error) => Err(call.nothing_done(error).await),
        }
    }

    /// Whether new keys were refused in the last seconds because the store was full.
    pub fn was_full(&self) -> bool {
        self.full.is_recent()
    }

    /// Whether keys cannot be read or written: from a failure until something has been written again, which is tried
    /// every second.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// The error for the caller; the cause is in the log.
    fn cannot_keep(&self, _: KeyStoreError) -> Error {
        self.has_failed.store(true, Ordering::Relaxed);
        Error::unavailable("could not store idempotency keys just now", RETRY_AFTER)
    }

    /// Waits until no other call with the key is running.
    async fn place(self: &Arc<Self>, key: Vec<u8>) -> KeyLock {
        let place = Arc::clone(self.running.lock().entry(key.clone()).or_default());
        // From here on, whoever goes cleans up.
        let mut place_taken = KeyLock { calls: Arc::clone(self), key, alone: None };
        place_taken.alone = Some(place.lock_owned().await);
        place_taken
    }

    /// Removes expired keys periodically, and tries to write to a file that could not be written. Never returns.
    pub async fn keep_swept(&self) {
        let mut next_sweep = Instant::now();
        loop {
            if self.has_failed() {
                let is_written = self.store.try_write().await.is_ok();
                self.has_failed.store(!is_written, Ordering::Relaxed);
            } else if Instant::now() >= next_sweep {
                next_sweep = Instant::now() + SWEEP_PAUSE;
                self.sweep().await;
            }
            tokio::time::sleep(TRIAL_PAUSE).await;
        }
    }

    /// Removes the keys that have expired. Nothing is forgotten by a time that is in doubt.
    async fn sweep(&self) {
        let Ok(now) = self.clock.judge_micros() else { return };
        loop {
            match self.store.sweep(now).await {
                Ok(0) => return,
                Ok(_) => {} // There may be more.
                Err(error) => {
                    self.has_failed.store(true, Ordering::Relaxed);
                    tracing::warn!(%error, "could not sweep idempotency keys");
                    return;
                }
            }
        }
    }
}

/// A call that runs.
struct Call {
    place: KeyLock,
    /// When the first attempt was made.
    at: u64,
    /// An earlier attempt was interrupted.
    is_again: bool,
}

impl Call {
    /// Waits for the verdicts and stores them, even if the caller disconnects.
    fn answer(
        self,
        submission: Submission,
        event_ids: Vec<Option<String>>,
    ) -> JoinHandle<Result<StoredResponse, Error>> {
        tokio::spawn(async move {
            let verdicts = match submission.verdicts().await {
                Ok(verdicts) => verdicts,
                // The log was full: nothing has happened.
                Err(error) if error.code == ErrorCode::Exhausted => return Err(self.nothing_done(error).await),
                // Something may have: whoever repeats the call will see.
                Err(error) => return Err(error),
            };
            let verdicts = if self.is_again { as_first(verdicts, &event_ids) } else { verdicts };
            // What is undecided is to be sent again, and not to be answered so again.
            if verdicts.counts.undecided == 0 {
                let answer = record::write_answer(&verdicts.verdicts);
                let key = self.place.key.clone();
                let calls = &self.place.calls;
                calls.store.finish(key, self.at, answer).await.map_err(|error| calls.cannot_keep(error))?;
            }
            Ok(StoredResponse { verdicts, event_ids, is_replayed: false })
        })
    }

    /// The call was refused. Its key is removed, unless an earlier attempt had an effect.
    async fn nothing_done(self, error: Error) -> Error {
        if !self.is_again {
            let forgotten = self.place.calls.store.forget(self.place.key.clone(), self.at).await;
            if let Err(error) = forgotten {
                tracing::warn!(%error, "could not remove the unused idempotency key of a refused call");
            }
        }
        error
    }
}

/// Events with generated ids can only be known from an earlier attempt of this call, which accepted
/// them.
fn as_first(made: BatchVerdicts, event_ids: &[Option<String>]) -> BatchVerdicts {
    let mut verdicts = made.verdicts;
    for (verdict, event_id) in verdicts.iter_mut().zip(event_ids) {
        if event_id.is_some() && *verdict == Verdict::Duplicate {
            *verdict = Verdict::Accepted;
        }
    }
    counted(verdicts)
}

fn counted(verdicts: Vec<Verdict>) -> BatchVerdicts {
    let mut counts = VerdictCounts::default();
    verdicts.iter().for_each(|verdict| counts.add(verdict));
    BatchVerdicts { verdicts, counts }
}

fn replayed(key: &[u8], at: u64, answer: &[u8], drafts: &[EventDraft<'_>]) -> Result<StoredResponse, Error> {
    let Some(verdicts) = record::read_answer(answer, drafts.len()) else {
        tracing::error!("the stored answer of an idempotency key cannot be read");
        return Err(Error::internal());
    };
    Ok(StoredResponse { verdicts: counted(verdicts), event_ids: event_ids(key, at, drafts), is_replayed: true })
}

/// Ids for the events that have none.
fn event_ids(key: &[u8], at: u64, drafts: &[EventDraft<'_>]) -> Vec<Option<String>> {
    let is_missing = |draft: &EventDraft<'_>| {
        draft.event_id.is_empty() && !draft.unreadable.iter().any(|error| error.field == "event_id")
    };
    let drafts = drafts.iter().zip(0_u64..);
    drafts.map(|(draft, position)| is_missing(draft).then(|| event_id(key, at, position))).collect()
}

/// A UUIDv7 with the time of the first attempt. Its random bits are derived from the organization,
/// the key, that time and the position.
fn event_id(key: &[u8], at: u64, position: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(b"tallyhouse event id");
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(at.to_le_bytes());
    hash.update(position.to_le_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hash.finalize()[..10]);
    uuid::Builder::from_unix_timestamp_millis(at / 1_000, &random).into_uuid().to_string()
}

/// The hash of a body: of all values of its events, independent of their text form.
fn print(drafts: &[EventDraft<'_>], durability: Durability) -> BodyHash {
    let mut hash = Sha256::new();
    hash.update((drafts.len() as u64).to_le_bytes());
    hash.update([u8::from(durability == Durability::Stored)]);
    for draft in drafts {
        // Each text ends where its length says.
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        let properties = match &draft.properties {
            PropertiesDraft::None => "",
            PropertiesDraft::Canonical(text) => text,
        };
        for field in [
            draft.event_id,
            draft.event_type,
            draft.campaign_id,
            draft.creative_id,
            draft.source,
            draft.user_id,
            properties,
        ] {
            text(field);
        }
        for error in &draft.unreadable {
            text(&error.field);
            text(&error.message);
        }
        hash.update((draft.unreadable.len() as u64).to_le_bytes());
        hash.update(draft.seq.to_le_bytes());
        hash.update([u8::from(draft.occurred_at.is_some())]);
        hash.update(draft.occurred_at.map_or(0, |time| time.millis()).to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{FieldError, Timestamp};

    #[test]
    fn a_key_is_a_short_text() {
        for good in ["a", "é ß", "\"quoted\"", &"x".repeat(255), &"é".repeat(255)] {
            assert!(IdempotencyKey::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a\n", "\0", &"x".repeat(256)] {
            assert!(IdempotencyKey::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn ids_are_the_same_again_and_differ_by_all_they_are_made_of() {
        let (acme, beta) = (OrgId::parse("acme").unwrap(), OrgId::parse("beta").unwrap());
        let key = |org_id: &OrgId, key: &str| IdempotencyKey::parse(key).unwrap().of(org_id);
        let at = 1_770_757_800_123_456;
        let id = event_id(&key(&acme, "k"), at, 0);
        assert_eq!(id, event_id(&key(&acme, "k"), at, 0));
        let parsed = uuid::Uuid::parse_str(&id).unwrap();
        assert_eq!(parsed.get_version_num(), 7);
        assert_eq!(parsed.get_timestamp().unwrap().to_unix(), (1_770_757_800, 123_000_000));
        let others = [
            event_id(&key(&beta, "k"), at, 0),
            event_id(&key(&acme, "l"), at, 0),
            event_id(&key(&acme, "k"), at + 1, 0),
            event_id(&key(&acme, "k"), at, 1),
        ];
        assert!(others.iter().all(|other| *other != id));
    }

    #[test]
    fn only_events_without_an_id_get_one() {
        let unreadable = vec![FieldError::new("event_id", "must be a string")];
        let drafts = [
            EventDraft::default(),
            EventDraft { event_id: "own", ..EventDraft::default() },
            EventDraft { unreadable, ..EventDraft::default() },
        ];
        let made: Vec<bool> = event_ids(b"k", 5, &drafts).iter().map(Option::is_some).collect();
        assert_eq!(made, [true, false, false]);
    }

    #[test]
    fn every_part_of_a_body_makes_another() {
        let draft = || EventDraft { event_id: "a", ..EventDraft::default() };
        let faults = || vec![FieldError::new("seq", "must be a number")];
        let bodies = [
            vec![],
            vec![draft()],
            vec![draft(), draft()],
            vec![EventDraft { event_id: "", event_type: "a", ..draft() }],
            vec![EventDraft { user_id: "b", ..draft() }],
            vec![EventDraft { source: "b", ..draft() }],
            vec![EventDraft { seq: 1, ..draft() }],
            vec![EventDraft { occurred_at: Some(Timestamp::from_millis(0)), ..draft() }],
            vec![EventDraft { occurred_at: Some(Timestamp::from_millis(1)), ..draft() }],
            vec![EventDraft { properties: PropertiesDraft::Canonical("{}".into()), ..draft() }],
            vec![EventDraft { unreadable: faults(), ..draft() }],
        ];
        let prints: Vec<BodyHash> = bodies.iter().map(|drafts| print(drafts, Durability::Logged)).collect();
        for (n, one) in prints.iter().enumerate() {
            assert_eq!(prints.iter().position(|other| other == one), Some(n));
        }
        assert_ne!(print(&[draft()], Durability::Logged), print(&[draft()], Durability::Stored));
    }

    #[test]
    fn what_a_broken_off_attempt_had_logged_was_accepted() {
        let ids = [Some("made".to_owned()), None, Some("made".to_owned()), Some("made".to_owned())];
        let verdicts = vec![Verdict::Duplicate, Verdict::Duplicate, Verdict::Accepted, Verdict::Conflict];
        let first = as_first(counted(verdicts), &ids);
        assert_eq!(first.verdicts, [Verdict::Accepted, Verdict::Duplicate, Verdict::Accepted, Verdict::Conflict]);
        assert_eq!((first.counts.accepted, first.counts.duplicate, first.counts.conflict), (2, 1, 1));
    }
}
