//! The store of the engines' records: one transactional file for all subscriptions.
//!
//! A commit is one transaction, synced before it is acknowledged. Commits that wait while another is written form the
//! next transaction together. After a crash the file is as its last commit left it. A thread of its own does the work.

mod records;
mod settlements;
mod tables;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

pub use records::{Commit, Cursor, CutOver, LaneRecord, LetterChange, StoredEvent, SubscriptionRecord};

use crate::domain::{DeadLetter, LaneKey, LetterNumber, Settlement, SubscriptionId};

/// Most commits in a transaction, and most that wait.
const COMMITS_MAX: usize = 256;
/// Memory for pages of the file, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// The file cannot be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// What the system or the store says.
    #[error("{0}")]
    Failed(String),
    /// The thread has ended.
    #[error("the store of deliveries is shut")]
    Shut,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Failed(error.into().to_string())
    }
}

type Reply = oneshot::Sender<Result<(), StoreError>>;

/// Something to write in the next transaction.
enum Write {
    Commit(SubscriptionId, Arc<Commit>),
    PutSubscription(Box<SubscriptionRecord>),
    PutCutOver(SubscriptionId, CutOver),
    DeleteSubscription(SubscriptionId),
}

/// The file of all subscriptions' states.
pub struct DeliveryStore {
    database: Arc<Database>,
    writes: Option<mpsc::Sender<(Write, Reply)>>,
    thread: Option<JoinHandle<()>>,
}

impl DeliveryStore {
    /// Opens the file, or makes it. Blocks. It should lie where nobody else can read it: events are in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Arc::new(Database::builder().set_cache_size(CACHE_BYTES).create(path)?);
        let transaction = database.begin_write()?;
        tables::create(&transaction)?;
        transaction.commit()?;
        let (writes, received) = mpsc::channel(COMMITS_MAX);
        let writer = Arc::clone(&database);
        let thread = std::thread::Builder::new().name("delivery-store".to_owned());
        let thread = thread.spawn(move || write_all(&writer, received)).map_err(redb::Error::Io)?;
        Ok(Self { database, writes: Some(writes), thread: Some(thread) })
    }

    /// Records what has happened in a subscription, durably.
    ///
    /// # Errors
    /// When it cannot be written: then nothing of it is recorded.
    pub async fn commit(&self, id: SubscriptionId, commit: impl Into<Arc<Commit>>) -> Result<(), StoreError> {
        self.write(Write::Commit(id, commit.into())).await
    }

    /// Creates or replaces a subscription.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn put_subscription(&self, subscription: SubscriptionRecord) -> Result<(), StoreError> {
        self.write(Write::PutSubscription(Box::new(subscription))).await
    }

    /// Records where a subscription goes over to the log.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn put_cut_over(&self, id: SubscriptionId, cut: CutOver) -> Result<(), StoreError> {
        self.write(Write::PutCutOver(id, cut)).await
    }

    /// Deletes a subscription with everything of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub async fn delete_subscription(&self, id: SubscriptionId) -> Result<(), StoreError> {
        self.write(Write::DeleteSubscription(id)).await
    }

    async fn write(&self, write: Write) -> Result<(), StoreError> {
        let (reply, answer) = oneshot::channel();
        let writes = self.writes.as_ref().ok_or(StoreError::Shut)?;
        writes.send((write, reply)).await.map_err(|_| StoreError::Shut)?;
        answer.await.map_err(|_| StoreError::Shut)?
    }

    /// All subscriptions, in the order of their numbers.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn subscriptions(&self) -> Result<Vec<SubscriptionRecord>, StoreError> {
        tables::subscriptions(&self.database)
    }

    /// From where a subscription reads on; none when it has recorded nothing yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn cursor(&self, id: SubscriptionId) -> Result<Option<Cursor>, StoreError> {
        tables::cursor(&self.database, id)
    }

    /// Where a subscription went over to the log; none when it has not, or did not begin in the past.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn cut_over(&self, id: SubscriptionId) -> Result<Option<CutOver>, StoreError> {
        tables::cut_over(&self.database, id)
    }

    /// The events of a subscription that the store has and that have not ended.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events(&self, id: SubscriptionId) -> Result<Vec<StoredEvent>, StoreError> {
        tables::events(&self.database, id)
    }

    /// The records of some lanes; the default of those that have none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn lanes(&self, id: SubscriptionId, keys: &[LaneKey]) -> Result<Vec<LaneRecord>, StoreError> {
        tables::lanes(&self.database, id, keys)
    }

    /// Dead letters from a number on, at most so many.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn letters(&self, id: SubscriptionId, from: LetterNumber, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        tables::letters(&self.database, id, from, max)
    }

    /// The first dead letters of a user, at most so many. Reads all of the subscription.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn letters_of(&self, id: SubscriptionId, user_id: &str, max: usize) -> Result<Vec<DeadLetter>, StoreError> {
        tables::letters_of(&self.database, id, user_id, max)
    }

    /// Deletes what there is of a user in a subscription whose engine does not run: its lane, events that wait, and dead
    /// letters. Records of how its events ended stay, without the user. Returns how many events were deleted. Blocks.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn erase_user(&self, id: SubscriptionId, user_id: &str) -> Result<u64, StoreError> {
        tables::erase_user(&self.database, id, user_id)
    }

    /// Copies everything, as of one time, into a new file, which is durable then. Blocks. It should lie where nobody else can
    /// read it.
    ///
    /// # Errors
    /// When the file cannot be read, or the copy cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let copy = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
        tables::copy(&self.database, &copy)
    }

    /// The numbers of all dead letters.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn letter_numbers(&self, id: SubscriptionId) -> Result<Vec<LetterNumber>, StoreError> {
        tables::letter_numbers(&self.database, id)
    }

    /// How many dead letters there are, and the number of the next.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn letter_counts(&self, id: SubscriptionId) -> Result<(u64, LetterNumber), StoreError> {
        tables::letter_counts(&self.database, id)
    }

    /// The record of how an event ended, where the subscription keeps such records.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn settlement(&self, id: SubscriptionId, event_id: &str) -> Result<Option<Settlement>, StoreError> {
        settlements::of_event(&self.database, id, event_id)
    }

    /// How many such records were written in all, those that are not kept any more included.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn settlement_count(&self, id: SubscriptionId) -> Result<u64, StoreError> {
        settlements::count(&self.database, id)
    }

    /// Such records from a number on, in the order in which they were written, at most so many; each with its number.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn settlements(&self, id: SubscriptionId, from: u64, max: usize) -> Result<Vec<(u64, Settlement)>, StoreError> {
        settlements::list(&self.database, id, from, max)
    }
}

impl Drop for DeliveryStore {
    /// Waits for what is under way: another may open the file then.
    fn drop(&mut self) {
        self.writes = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it is in the log.
            let _ = thread.join();
        }
    }
}

/// The thread.
fn write_all(database: &Database, mut received: mpsc::Receiver<(Write, Reply)>) {
    while let Some(first) = received.blocking_recv() {
        let mut writes = vec![first];
        while writes.len() < COMMITS_MAX
            && let Ok(write) = received.try_recv()
        {
            writes.push(write);
        }
        let (writes, replies): (Vec<Write>, Vec<Reply>) = writes.into_iter().unzip();
        let done = tables::write(database, writes);
        if let Err(error) = &done {
            tracing::error!(%error, "what was delivered cannot be recorded");
        }
        for reply in replies {
            let _ = reply.send(done.clone()); // Whoever asked may have gone.
        }
    }
}

#[cfg(test)]
mod tests;
