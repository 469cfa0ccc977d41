//! The store of idempotency keys: a file in the data directory (see ADR 13).
//!
//! One thread owns the file. Requests that arrive during a commit form the next transaction, so that many
//! calls share one sync. The store answers a request after its commit.

mod file;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, ReadableTable as _, ReadableTableMetadata as _, Table, TableDefinition, WriteTransaction};
use tallyhouse_disk::{Disk, RealDisk};
use tokio::sync::{mpsc, oneshot};

use super::record::{BodyHash, Record};
use crate::fairness::Shares;
use crate::private_files;

/// Organization and key, and the record.
const RECORDS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("records");
/// The same keys in the order of their times, which are in microseconds.
const TIMES: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("times");
/// Sums over all records, and over those of each organization.
const SUMS: TableDefinition<'_, &str, u64> = TableDefinition::new("sums");
/// What the last trial to write has written, under its number. Earlier releases do not read it.
const TRIALS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("trials");
/// The sum of what records cost, in bytes.
const BYTES: &str = "bytes";
/// Present when the sums of each organization are stored. Files of earlier releases lack it.
const BY_ORGANIZATION: &str = "by organization";

/// How long a key is kept after its first call.
pub(super) const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The cost of a record beside its key and its value, in bytes: its entry by time, and overhead of
/// pages.
const RECORD_BYTES: u64 = 64;
/// Most requests in a transaction, and most of them that wait.
const REQUESTS_MAX: usize = 1_024;
/// Most keys that one transaction forgets.
const SWEPT_MAX: usize = 10_000;
/// Bytes that a trial writes: as many as a large answer, so that a call finds room where a trial did.
const TRIAL_BYTES: usize = 64 << 10;
/// Memory for pages of the file, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// The limits of the store. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct KeyBounds {
    /// Most keys.
    pub keys_max: u64,
    /// Most bytes of keys and answers.
    pub bytes_max: u64,
    /// Most that one organization may have of both, in percent.
    pub share_percent: u32,
}

impl KeyBounds {
    const fn shares(&self, total: u64) -> Shares {
        Shares::new(total, self.share_percent).in_small_units()
    }
}

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// The error of the system or the store.
    #[error("{0}")]
    Failed(String),
    /// The thread has ended.
    #[error("the store of idempotency keys is shut")]
    Shut,
}

impl<E: Into<redb::Error>> From<E> for KeyStoreError {
    fn from(error: E) -> Self {
        Self::Failed(error.into().to_string())
    }
}

/// The state of a key when a call begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyState {
    /// The key is new. Its use has been recorded durably.
    New {
        /// When.
        at: u64,
    },
    /// An earlier call was interrupted before its answer.
    Again {
        /// The time of that call.
        at: u64,
    },
    /// An earlier call was answered.
    Answered {
        /// The time of that call.
        at: u64,
        /// The answer.
        answer: Vec<u8>,
    },
    /// An earlier call had another body.
    OtherBody,
    /// The store is full.
    Full {
        /// When the oldest key expires.
        retry_after: Duration,
    },
}

type Reply<T> = oneshot::Sender<Result<T, KeyStoreError>>;

enum Request {
    Begin { key: Vec<u8>, print: BodyHash, now: u64, reply: Reply<KeyState> },
    Finish { key: Vec<u8>, at: u64, answer: Vec<u8>, reply: Reply<()> },
    Forget { key: Vec<u8>, at: u64, reply: Reply<()> },
    Sweep { now: u64, reply: Reply<usize> },
    TryWrite { reply: Reply<()> },
}

/// The handle of the file of keys. Requests are sent to the thread that owns the file; dropping the
/// handle ends the thread.
pub struct KeyStore {
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl KeyStore {
    /// Opens or creates the file. Blocking.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path, bounds: KeyBounds) -> Result<Self, KeyStoreError> {
        private_files::close_to_others(path)?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let keeper = StoreThread { database: Some(open(&*disk, path)?), disk, path: path.to_owned(), bounds };
        let (requests, received) = mpsc::channel(REQUESTS_MAX);
        let thread = std::thread::Builder::new().name("idempotency".to_owned());
        let thread = thread.spawn(move || keeper.run(received)).map_err(redb::Error::Io)?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// Begins a call with this key and body hash.
    pub(super) async fn begin(&self, key: Vec<u8>, print: BodyHash, now: u64) -> Result<KeyState, KeyStoreError> {
        self.ask(|reply| Request::Begin { key, print, now, reply }).await
    }

    /// Stores the answer of the call that began at this time.
    pub(super) async fn finish(&self, key: Vec<u8>, at: u64, answer: Vec<u8>) -> Result<(), KeyStoreError> {
        self.ask(|reply| Request::Finish { key, at, answer, reply }).await
    }

    /// Removes the key of a call that had no effect.
    pub(super) async fn forget(&self, key: Vec<u8>, at: u64) -> Result<(), KeyStoreError> {
        self.ask(|reply| Request::Forget { key, at, reply }).await
    }

    /// Removes expired keys, and returns their number.
    pub(super) async fn sweep(&self, now: u64) -> Result<usize, KeyStoreError> {
        self.ask(|reply| Request::Sweep { now, reply }).await
    }

    /// Writes as much as a call may, to learn whether the file can be written again.
    pub(super) async fn try_write(&self) -> Result<(), KeyStoreError> {
        self.ask(|reply| Request::TryWrite { reply }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, KeyStoreError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(KeyStoreError::Shut)?;
        requests.send(request(reply)).await.map_err(|_| KeyStoreError::Shut)?;
        answer.await.map_err(|_| KeyStoreError::Shut)?
    }
}

impl Drop for KeyStore {
    /// Waits for the thread, so that the file can be opened again.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of it is in the log.
            let _ = thread.join();
        }
    }
}

/// Opens or creates the file, with its tables.
fn open(disk: &dyn Disk, path: &Path) -> Result<Database, KeyStoreError> {
    let database = file::open(disk, path, CACHE_BYTES)?;
    let transaction = database.begin_write()?;
    for made in [transaction.open_table(RECORDS).map(drop), transaction.open_table(TIMES).map(drop)] {
        made?;
    }
    sum_by_organization(&transaction)?;
    transaction.commit()?;
    Ok(database)
}

/// Computes the sums of each organization for a file of an earlier release.
fn sum_by_organization(transaction: &WriteTransaction) -> Result<(), KeyStoreError> {
    let mut sums = transaction.open_table(SUMS)?;
    if sums.get(BY_ORGANIZATION)?.is_some() {
        return Ok(());
    }
    let mut of: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for entry in transaction.open_table(RECORDS)?.iter()? {
        let (key, record) = entry?;
        let (keys, bytes) = of.entry(organization(key.value())).or_default();
        *keys += 1;
        *bytes += cost(key.value(), record.value());
    }
    for (organization, (keys, bytes)) in of {
        sums.insert(keys_of(&organization).as_str(), keys)?;
        sums.insert(bytes_of(&organization).as_str(), bytes)?;
    }
    sums.insert(BY_ORGANIZATION, 1)?;
    Ok(())
}

/// The organization that a key belongs to: the part before its NUL.
fn organization(key: &[u8]) -> String {
    let end = key.iter().position(|byte| *byte == 0).unwrap_or(key.len());
    String::from_utf8_lossy(&key[..end]).into_owned()
}

fn keys_of(organization: &str) -> String {
    format!("keys of {organization}")
}

fn bytes_of(organization: &str) -> String {
    format!("bytes of {organization}")
}

/// The thread.
struct StoreThread {
    /// None after an error; it is reopened for the next request.
    database: Option<Database>,
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bounds: KeyBounds,
}

/// The answer to send after the transaction has been committed.
type PendingReply = Box<dyn FnOnce(Option<&KeyStoreError>)>;

impl StoreThread {
    fn run(mut self, mut received: mpsc::Receiver<Request>) {
        let mut has_failed = false;
        while let Some(first) = received.blocking_recv() {
            let mut requests = vec![first];
            while requests.len() < REQUESTS_MAX
                && let Ok(request) = received.try_recv()
            {
                requests.push(request);
            }
            let mut said = Vec::with_capacity(requests.len());
            let done = self.transact(requests, &mut said);
            if let Err(error) = &done {
                self.database = None;
                // A full disk fails every call and every trial.
                if !has_failed {
                    tracing::error!(%error, "could not store idempotency keys");
                }
            } else if has_failed {
                tracing::info!("idempotency keys are stored again");
            }
            has_failed = done.is_err();
            for say in said {
                say(done.as_ref().err());
            }
        }
    }

    /// Requests that are not reached get no answer, which their callers treat as an error.
    fn transact(&mut self, requests: Vec<Request>, said: &mut Vec<PendingReply>) -> Result<(), KeyStoreError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&*self.disk, &self.path)?,
        };
        let transaction = database.begin_write()?;
        let is_changed = Tables::open(&transaction, self.bounds)?.take_all(requests, said)?;
        if is_changed {
            transaction.commit()?;
        } else {
            transaction.abort()?;
        }
        self.database = Some(database);
        Ok(())
    }
}

struct Tables<'t> {
    transaction: &'t WriteTransaction,
    records: Table<'t, &'static [u8], &'static [u8]>,
    times: Table<'t, (u64, &'static [u8]), ()>,
    sums: Table<'t, &'static str, u64>,
    bounds: KeyBounds,
    is_changed: bool,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction, bounds: KeyBounds) -> Result<Self, KeyStoreError> {
        Ok(Self {
            transaction,
            records: transaction.open_table(RECORDS)?,
            times: transaction.open_table(TIMES)?,
            sums: transaction.open_table(SUMS)?,
            bounds,
            is_changed: false,
        })
    }

    /// Returns whether anything is to be committed.
    fn take_all(mut self, requests: Vec<Request>, said: &mut Vec<PendingReply>) -> Result<bool, KeyStoreError> {
        for request in requests {
            said.push(match request {
                Request::Begin { key, print, now, reply } => say(reply, self.begin(&key, print, now)?),
                Request::Finish { key, at, answer, reply } => say(reply, self.finish(&key, at, &answer)?),
                Request::Forget { key, at, reply } => say(reply, self.forget(&key, at)?),
                Request::Sweep { now, reply } => say(reply, self.sweep(now)?),
                Request::TryWrite { reply } => say(reply, self.try_write()?),
            });
        }
        Ok(self.is_changed)
    }

    fn begin(&mut self, key: &[u8], print: BodyHash, now: u64) -> Result<KeyState, KeyStoreError> {
        let found = self.records.get(key)?.map(|record| record.value().to_vec());
        if let Some(record) = found.as_deref().and_then(Record::read) {
            let Record { at, print: first, answer } = record;
            if !is_over(at, now) {
                return Ok(match answer {
                    _ if first != print => KeyState::OtherBody,
                    [] => KeyState::Again { at },
                    answer => KeyState::Answered { at, answer: answer.to_vec() },
                });
            }
            self.remove(key, at)?;
        }
        let record = Record { at: now, print, answer: &[] }.write();
        if !self.has_room(key, cost(key, &record))? {
            return self.full(now);
        }
        self.put(key, &record)?;
        self.times.insert((now, key), ())?;
        Ok(KeyState::New { at: now })
    }

    /// Whether an organization may have another key that costs so much: within its share, and within what
    /// all have.
    fn has_room(&self, key: &[u8], cost: u64) -> Result<bool, KeyStoreError> {
        let KeyBounds { keys_max, bytes_max, .. } = self.bounds;
        let organization = organization(key);
        let (keys, bytes) = (self.sum(&keys_of(&organization))?, self.sum(&bytes_of(&organization))?);
        let has_keys = self.bounds.shares(keys_max).allows(self.records.len()?, keys, 1);
        Ok(has_keys && self.bounds.shares(bytes_max).allows(self.sum(BYTES)?, bytes, cost))
    }

    fn full(&self, now: u64) -> Result<KeyState, KeyStoreError> {
        let oldest = self.times.first()?.map_or(now, |(time, _)| time.value().0);
        let goes_at = oldest.saturating_add(micros(RETENTION));
        Ok(KeyState::Full { retry_after: Duration::from_micros(goes_at.saturating_sub(now)) })
    }

    fn finish(&mut self, key: &[u8], at: u64, answer: &[u8]) -> Result<(), KeyStoreError> {
        let found = self.records.get(key)?.map(|record| record.value().to_vec());
        // It may have been forgotten since, if the call took a day.
        if let Some(record) = found.as_deref().and_then(Record::read).filter(|record| record.at == at) {
            self.put(key, &Record { answer, ..record }.write())?;
        }
        Ok(())
    }

    fn forget(&mut self, key: &[u8], at: u64) -> Result<(), KeyStoreError> {
        let is_it = self.records.get(key)?.and_then(|record| Record::read(record.value()).map(|record| record.at));
        if is_it == Some(at) { self.remove(key, at) } else { Ok(()) }
    }

    fn sweep(&mut self, now: u64) -> Result<usize, KeyStoreError> {
        let Some(over) = now.checked_sub(micros(RETENTION)) else { return Ok(0) };
        let end: (u64, &[u8]) = (over.saturating_add(1), &[]);
        let mut swept = Vec::new();
        for entry in self.times.range(..end)?.take(SWEPT_MAX) {
            let (time, _) = entry?;
            let (at, key) = time.value();
            swept.push((at, key.to_vec()));
        }
        for (at, key) in &swept {
            self.remove(key, *at)?;
        }
        Ok(swept.len())
    }

    fn try_write(&mut self) -> Result<(), KeyStoreError> {
        let mut trials = self.transaction.open_table(TRIALS)?;
        let last = trials.last()?.map_or(0, |(number, _)| number.value());
        trials.insert(last.wrapping_add(1), [0; TRIAL_BYTES].as_slice())?;
        trials.remove(last)?;
        self.is_changed = true;
        Ok(())
    }

    fn put(&mut self, key: &[u8], record: &[u8]) -> Result<(), KeyStoreError> {
        let before = self.records.insert(key, record)?.map(|before| cost(key, before.value()));
        self.account(key, before, Some(cost(key, record)))
    }

    fn remove(&mut self, key: &[u8], at: u64) -> Result<(), KeyStoreError> {
        let before = self.records.remove(key)?.map(|before| cost(key, before.value()));
        self.times.remove((at, key))?;
        self.account(key, before, None)
    }

    fn sum(&self, name: &str) -> Result<u64, KeyStoreError> {
        Ok(self.sums.get(name)?.map_or(0, |sum| sum.value()))
    }

    /// A record that cost `before`, if there was one, costs `after` now, if there is one.
    fn account(&mut self, key: &[u8], before: Option<u64>, after: Option<u64>) -> Result<(), KeyStoreError> {
        let organization = organization(key);
        let (less, more) = (before.unwrap_or_default(), after.unwrap_or_default());
        let (keys_less, keys_more) = (u64::from(before.is_some()), u64::from(after.is_some()));
        self.change_sum(BYTES, less, more)?;
        self.change_sum(&bytes_of(&organization), less, more)?;
        self.change_sum(&keys_of(&organization), keys_less, keys_more)?;
        self.is_changed = true;
        Ok(())
    }

    /// A sum of zero is removed, since organizations come and go.
    fn change_sum(&mut self, name: &str, less: u64, more: u64) -> Result<(), KeyStoreError> {
        match self.sum(name)?.saturating_sub(less).saturating_add(more) {
            0 => self.sums.remove(name)?.map(drop),
            sum => self.sums.insert(name, sum)?.map(drop),
        };
        Ok(())
    }
}

fn say<T: 'static>(reply: Reply<T>, answer: T) -> PendingReply {
    Box::new(move |error| {
        let answer = match error {
            None => Ok(answer),
            Some(error) => Err(KeyStoreError::Failed(error.to_string())),
        };
        // Whoever asked may have gone.
        let _ = reply.send(answer);
    })
}

/// The key stands in both tables.
const fn cost(key: &[u8], record: &[u8]) -> u64 {
    2 * key.len() as u64 + record.len() as u64 + RECORD_BYTES
}

const fn micros(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000
}

const fn is_over(at: u64, now: u64) -> bool {
    now >= at.saturating_add(micros(RETENTION))
}
