//! The engine of a subscription: reads the source, hands out events that are due, and records their results.
//!
//! One task owns the state (`driver`); [`Engine`] is the handle to it. Decisions that need no waiting are in `sequencer`
//! (which event is next) and `window` (what is read again after a crash).

mod clock;
mod driver;
mod erasure;
mod lane;
mod recovery;
mod reporting;
mod results;
mod sequencer;
#[cfg(test)]
mod simulation;
mod window;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use clock::Clock;

use crate::domain::{
    DeadLetter, EventStatus, LaneKey, LetterNumber, Settlement, SubscriptionId, SubscriptionSettings,
    SubscriptionStatus, UserStatus,
};
use crate::handler::Handler;
use crate::source::EventSource;
use crate::store::{DeliveryStore, StoreError, SubscriptionRecord};
use driver::Driver;

/// Commands that may wait.
const COMMANDS_MAX: usize = 64;
/// Dead letters that one call replays or discards at most.
pub const LETTERS_PER_CALL_MAX: usize = 1_000;

/// The bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub struct EngineBounds {
    /// Events between the oldest that has not ended and the last that was read, as far as the store does not have them.
    pub window_events_max: usize,
    /// Events that are read at a time.
    pub read_events_max: usize,
    /// Early events of one user. One more, and its missing seqs are skipped.
    pub user_buffered_max: usize,
    /// Events that wait, in memory and, the older ones, in the store. From then on nothing is read, and if most of them are
    /// early and none can be handed out, the missing seqs of the user with the most early events are skipped.
    pub waiting_max: usize,
    /// Records of how events ended that are kept; 0: none.
    pub settlements_max: u64,
    /// Dead letters. With so many, the subscription is paused.
    pub letters_max: u64,
    /// How long what is under way may take when the engine is stopped.
    pub stop_wait: Duration,
}

impl Default for EngineBounds {
    fn default() -> Self {
        Self {
            window_events_max: 16_384,
            read_events_max: 2_048,
            user_buffered_max: 10_000,
            waiting_max: 200_000,
            settlements_max: 0,
            letters_max: u64::MAX,
            stop_wait: Duration::from_secs(5),
        }
    }
}

/// What an engine works with.
pub struct EngineParts {
    /// The subscription.
    pub subscription: SubscriptionRecord,
    /// The bounds.
    pub bounds: EngineBounds,
    /// Where events come from.
    pub source: Arc<dyn EventSource>,
    /// Who handles them.
    pub handler: Arc<dyn Handler>,
    /// Where what happened is recorded.
    pub store: Arc<DeliveryStore>,
    /// The time.
    pub clock: Clock,
}

/// Why an engine did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// It has stopped.
    #[error("the subscription is not running")]
    Stopped,
    /// The store failed.
    #[error("the store of deliveries failed: {0}")]
    Store(#[from] StoreError),
    /// The handler could not note it.
    #[error("the handler is not available: {0}")]
    Handler(String),
}

/// What an engine can be asked for.
enum Command {
    Status(oneshot::Sender<SubscriptionStatus>),
    Event(String, oneshot::Sender<Option<EventStatus>>),
    User(LaneKey, oneshot::Sender<Option<UserStatus>>),
    Settings(oneshot::Sender<SubscriptionSettings>),
    Update(Box<SubscriptionSettings>, oneshot::Sender<()>),
    PauseUser(LaneKey, bool, oneshot::Sender<()>),
    Replay(Vec<DeadLetter>, oneshot::Sender<usize>),
    Remove(Vec<LetterNumber>, oneshot::Sender<usize>),
    Erase(LaneKey, oneshot::Sender<usize>),
    /// Hands out nothing until the sender of the second is dropped; says so once nothing is under way and all is
    /// recorded.
    Hold(oneshot::Sender<()>, oneshot::Receiver<()>),
}

/// The handle of a running engine. Dropping it does not stop the engine.
#[derive(Clone)]
pub struct Engine {
    id: SubscriptionId,
    commands: mpsc::Sender<Command>,
    stop: CancellationToken,
    task: Arc<parking_lot::Mutex<Option<JoinHandle<()>>>>,
    store: Arc<DeliveryStore>,
    handler: Arc<dyn Handler>,
    clock: Clock,
}

/// As long as it is there, the engine hands out nothing.
pub struct EngineHold {
    _release: oneshot::Sender<()>,
}

impl Engine {
    /// Starts an engine where the store says that it stopped. Reads the store: blocks.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn start(parts: EngineParts) -> Result<Self, EngineError> {
        let (commands, received) = mpsc::channel(COMMANDS_MAX);
        let stop = CancellationToken::new();
        let (id, store, clock) = (parts.subscription.id, Arc::clone(&parts.store), parts.clock.clone());
        let handler = Arc::clone(&parts.handler);
        let driver = Driver::recover(parts, received, stop.clone())?;
        let task = Arc::new(parking_lot::Mutex::new(Some(tokio::spawn(driver.run()))));
        Ok(Self { id, commands, stop, task, store, handler, clock })
    }

    /// Stops it: what is under way is finished and recorded, as far as that takes no longer than the bound.
    pub async fn stop(&self) {
        self.stop.cancel();
        let task = self.task.lock().take();
        if let Some(task) = task {
            let _ = task.await; // A panic of it is in the log.
        }
    }

    /// Ends it as a crash would: nothing more is recorded.
    #[cfg(test)]
    pub(crate) async fn crash(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DeliveryStore, SubscriptionId) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let (store, id) = (Arc::clone(&self.store), self.id);
        let read = tokio::task::spawn_blocking(move || read(&store, id)).await;
        Ok(read.map_err(|error| StoreError::Failed(error.to_string()))??)
    }

    /// How it is getting on.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn status(&self) -> Result<SubscriptionStatus, EngineError> {
        self.ask(Command::Status).await
    }

    /// Where an event is; none when it is not known here: it was not read yet, or its record is not kept.
    ///
    /// # Errors
    /// When the engine is not running, or the store cannot be read.
    pub async fn event(&self, event_id: &str) -> Result<Option<EventStatus>, EngineError> {
        let id = event_id.to_owned();
        if let Some(status) = self.ask(|reply| Command::Event(id, reply)).await? {
            return Ok(Some(status));
        }
        let id = event_id.to_owned();
        let settlement = self.read(move |store, subscription| store.settlement(subscription, &id)).await?;
        Ok(settlement.map(EventStatus::from))
    }

    /// How a user is getting on.
    ///
    /// # Errors
    /// When the engine is not running, or the store cannot be read.
    pub async fn user(&self, user_id: &str) -> Result<UserStatus, EngineError> {
        let key = LaneKey::of_user(user_id);
        let asked = key.clone();
        if let Some(status) = self.ask(|reply| Command::User(asked, reply)).await? {
            return Ok(status);
        }
        let record = self.read(move |store, id| store.lanes(id, &[key])).await?.pop().unwrap_or_default();
        Ok(UserStatus {
            next_seq: record.next_seq,
            gaps: record.gaps,
            is_paused: record.is_paused,
            ..UserStatus::default()
        })
    }

    /// The settings of now.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn settings(&self) -> Result<SubscriptionSettings, EngineError> {
        self.ask(Command::Settings).await
    }

    /// Other settings, from now on. Answers once they are recorded. Events that were read already stay, whatever the
    /// filter says now, also after a restart. An engine that is started with another filter than the last one does not know
    /// that: whoever stops it to start another with other settings calls this first.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn update(&self, settings: SubscriptionSettings) -> Result<(), EngineError> {
        self.ask(|reply| Command::Update(Box::new(settings), reply)).await
    }

    /// Pauses a user or lets it go on. Answers once that is recorded.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn pause_user(&self, user_id: &str, is_paused: bool) -> Result<(), EngineError> {
        let key = LaneKey::of_user(user_id);
        self.ask(|reply| Command::PauseUser(key, is_paused, reply)).await
    }

    /// Dead letters from a number on, at most so many.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn letters(&self, from: LetterNumber, max: usize) -> Result<Vec<DeadLetter>, EngineError> {
        self.read(move |store, id| store.letters(id, from, max)).await
    }

    /// The numbers of all dead letters.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn letter_numbers(&self) -> Result<Vec<LetterNumber>, EngineError> {
        self.read(DeliveryStore::letter_numbers).await
    }

    /// Replays dead letters in the order of their numbers. Answers with how many there were, once that is recorded.
    ///
    /// # Errors
    /// When it is not running, or the store cannot be read.
    pub async fn replay(&self, numbers: &[LetterNumber]) -> Result<usize, EngineError> {
        let letters = self.find_letters(numbers).await?;
        self.ask(|reply| Command::Replay(letters, reply)).await
    }

    /// Discards dead letters. Answers with how many there were, once that is recorded.
    ///
    /// # Errors
    /// When it is not running, the store cannot be read, or the handler cannot note it.
    pub async fn discard(&self, numbers: &[LetterNumber]) -> Result<usize, EngineError> {
        let letters = self.find_letters(numbers).await?;
        self.handler.discard(&letters).await.map_err(EngineError::Handler)?;
        let numbers = letters.iter().map(|letter| letter.number).collect();
        self.ask(|reply| Command::Remove(numbers, reply)).await
    }

    /// Deletes what there is of a user: its lane, events that wait, and dead letters. What the handler has of them is waited
    /// for. Records of how its events ended stay, without the user. Returns how many events were deleted, once that is
    /// recorded. Events of the user that are read later are delivered.
    ///
    /// # Errors
    /// When it is not running, the store cannot be read, or the handler cannot note it.
    pub async fn erase_user(&self, user_id: &str) -> Result<u64, EngineError> {
        let key = LaneKey::of_user(user_id);
        let mut erased = self.ask(|reply| Command::Erase(key, reply)).await?;
        loop {
            let user = user_id.to_owned();
            let letters = self.read(move |store, id| store.letters_of(id, &user, LETTERS_PER_CALL_MAX)).await?;
            let numbers: Vec<LetterNumber> = letters.iter().map(|letter| letter.number).collect();
            let removed = if numbers.is_empty() { 0 } else { self.discard(&numbers).await? };
            if removed == 0 {
                return Ok(erased as u64);
            }
            erased += removed;
        }
    }

    async fn find_letters(&self, numbers: &[LetterNumber]) -> Result<Vec<DeadLetter>, EngineError> {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.truncate(LETTERS_PER_CALL_MAX);
        self.read(move |store, id| {
            let mut letters = Vec::new();
            for number in numbers {
                letters.extend(store.letters(id, number, 1)?.into_iter().filter(|letter| letter.number == number));
            }
            Ok(letters)
        })
        .await
    }

    /// Waits until nothing is under way and all is recorded; then nothing is handed out as long as the hold is there.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn hold(&self) -> Result<EngineHold, EngineError> {
        let (release, released) = oneshot::channel();
        self.ask(|reply| Command::Hold(reply, released)).await?;
        Ok(EngineHold { _release: release })
    }

    /// Records of how events ended, see [`DeliveryStore::settlements`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn settlements(&self, from: u64, max: usize) -> Result<Vec<(u64, Settlement)>, EngineError> {
        self.read(move |store, id| store.settlements(id, from, max)).await
    }

    /// The time, as it is written into records.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }
}
