//! The gate between the forwarder's inserts and the audit.
//!
//! An insert is not atomic: for a moment an event is in the raw table and not
//! yet in the rollups, and after a broken-off insert it stays so until the
//! segment is inserted again. Whoever compares the tables must know of both.
//!
//! So each attempt to insert a segment passes here. The audit can hold the
//! gate, and then no attempt of this service is under way. And the gate
//! remembers which segments were attempted and are not confirmed: what they
//! touch is in flight, and says nothing.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::time::Instant;
use uuid::Uuid;

/// See the module.
#[derive(Default)]
pub struct InsertGate {
    passage: RwLock<()>,
    /// Each with the moment of its first attempt; none if that may have been in
    /// a former run. A handful: those under way, those that wait to be repeated,
    /// the parked ones, and those a former run left.
    unconfirmed: Mutex<BTreeMap<Uuid, Option<Instant>>>,
}

impl InsertGate {
    /// A gate for a log that holds these segments already: a former run may
    /// have attempted them.
    pub fn new(former: impl IntoIterator<Item = Uuid>) -> Self {
        Self { passage: RwLock::default(), unconfirmed: Mutex::new(former.into_iter().map(|id| (id, None)).collect()) }
    }

    /// Begins an attempt to insert a segment, as soon as the gate is open.
    pub async fn attempt(&self, segment: Uuid) -> Attempt<'_> {
        let passage = self.passage.read().await;
        let former = match self.unconfirmed.lock().entry(segment) {
            Entry::Vacant(entry) => {
                entry.insert(Some(Instant::now()));
                Former::None
            }
            Entry::Occupied(entry) => entry.get().map_or(Former::OfFormerRun, |first| Former::Ago(first.elapsed())),
        };
        Attempt { gate: self, segment, former, _passage: passage }
    }

    /// Closes the gate, once the attempts under way have ended, until the
    /// answer is dropped.
    pub async fn hold(&self) -> RwLockWriteGuard<'_, ()> {
        self.passage.write().await
    }

    /// The segments that may be in the database in part.
    pub fn unconfirmed(&self) -> BTreeSet<Uuid> {
        self.unconfirmed.lock().keys().copied().collect()
    }
}

/// When a segment was first attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Former {
    /// Nobody has attempted it: not this run, and no former one.
    None,
    /// So long ago, by this run.
    Ago(Duration),
    /// Perhaps by a former run, nobody knows when.
    OfFormerRun,
}

/// One attempt to insert a segment. Dropped, it leaves open what became of it.
#[must_use]
pub struct Attempt<'a> {
    gate: &'a InsertGate,
    segment: Uuid,
    former: Former,
    _passage: RwLockReadGuard<'a, ()>,
}

impl Attempt<'_> {
    /// Whether the segment was attempted before.
    pub const fn former(&self) -> Former {
        self.former
    }

    /// The database has said that it has the segment.
    pub fn stored(self) {
        self.gate.unconfirmed.lock().remove(&self.segment);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn an_attempt_is_unconfirmed_until_it_is_stored() {
        let (former, new) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let gate = InsertGate::new([former]);
        drop(gate.attempt(new).await);
        assert_eq!(gate.unconfirmed(), BTreeSet::from([former, new]));
        gate.attempt(former).await.stored();
        assert_eq!(gate.unconfirmed(), BTreeSet::from([new]));
    }

    #[tokio::test]
    async fn attempts_wait_while_the_gate_is_held_and_it_is_held_after_the_last() {
        let gate = InsertGate::default();
        let first = gate.attempt(Uuid::from_u128(1)).await;
        let mut hold = Box::pin(gate.hold());
        assert!(hold.as_mut().now_or_never().is_none(), "an attempt is under way");
        drop(first);
        let held = hold.await;
        let mut second = Box::pin(gate.attempt(Uuid::from_u128(2)));
        assert!(second.as_mut().now_or_never().is_none(), "the gate is held");
        assert!(!gate.unconfirmed().contains(&Uuid::from_u128(2)), "it has not begun");
        drop(held);
        second.await.stored();
    }
}
