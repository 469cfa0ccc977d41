//! The gate between the forwarder's inserts and the audit.
//!
//! An insert is not atomic: for a moment an event is in the raw table and not
//! yet in the rollups, and after a broken-off insert it stays so until the
//! segment is inserted again. Whoever compares the tables must know of both.
//!
//! So each attempt to insert a segment passes here, by the passage of its lane: attempts of the main lane are never stopped
//! by one of the scattered lane that takes long. The audit can hold the
//! gate, and then no attempt of this service is under way. And the gate
//! remembers which segments were attempted and are not confirmed: what they
//! touch is in flight, and says nothing.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use uuid::Uuid;

use crate::log::Lane;

/// The gate that every insert of a segment passes. Knows the segments whose inserts are not
/// confirmed.
#[derive(Default)]
pub struct InsertGate {
    main: RwLock<()>,
    scattered: RwLock<()>,
    /// A handful: those under way, those that wait to be repeated, the parked
    /// ones, and those a former run left.
    unconfirmed: Mutex<BTreeSet<Uuid>>,
}

impl InsertGate {
    /// A gate for a log that holds these segments already: a former run may
    /// have attempted them.
    pub fn new(former: impl IntoIterator<Item = Uuid>) -> Self {
        Self {
            main: RwLock::default(),
            scattered: RwLock::default(),
            unconfirmed: Mutex::new(former.into_iter().collect()),
        }
    }

    /// Begins an attempt to insert a segment, as soon as the gate is open.
    pub async fn attempt(&self, segment: Uuid, lane: Lane) -> Attempt<'_> {
        let passage = match lane.waits_in() {
            Lane::Scattered => self.scattered.read().await,
            Lane::Main | Lane::Unknown => self.main.read().await,
        };
        let is_first = self.unconfirmed.lock().insert(segment);
        Attempt { gate: self, segment, is_first, _passage: passage }
    }

    /// Closes the gate, once the attempts under way have ended, until the
    /// answer is dropped. The main lane is closed last, so that it goes on while a scattered attempt is waited for.
    pub async fn hold(&self) -> GateHold<'_> {
        let scattered = self.scattered.write().await;
        GateHold { _scattered: scattered, _main: self.main.write().await }
    }

    /// The segments that may be in the database in part.
    pub fn unconfirmed(&self) -> BTreeSet<Uuid> {
        self.unconfirmed.lock().clone()
    }
}

/// Keeps the gate closed until it is dropped.
#[must_use]
pub struct GateHold<'a> {
    _scattered: RwLockWriteGuard<'a, ()>,
    _main: RwLockWriteGuard<'a, ()>,
}

/// One attempt to insert a segment. Dropped, it leaves open what became of it.
#[must_use]
pub struct Attempt<'a> {
    gate: &'a InsertGate,
    segment: Uuid,
    is_first: bool,
    _passage: RwLockReadGuard<'a, ()>,
}

impl Attempt<'_> {
    /// Whether nobody has attempted the segment before: not this run, and for
    /// certain no former one.
    pub const fn is_first(&self) -> bool {
        self.is_first
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
        assert!(gate.attempt(new, Lane::Main).await.is_first());
        assert!(!gate.attempt(new, Lane::Main).await.is_first());
        assert_eq!(gate.unconfirmed(), BTreeSet::from([former, new]));
        let attempt = gate.attempt(former, Lane::Main).await;
        assert!(!attempt.is_first(), "a former run may have");
        attempt.stored();
        assert_eq!(gate.unconfirmed(), BTreeSet::from([new]));
    }

    #[tokio::test]
    async fn attempts_wait_while_the_gate_is_held_and_it_is_held_after_the_last() {
        let gate = InsertGate::default();
        let first = gate.attempt(Uuid::from_u128(1), Lane::Main).await;
        let mut hold = Box::pin(gate.hold());
        assert!(hold.as_mut().now_or_never().is_none(), "an attempt is under way");
        drop(first);
        let held = hold.await;
        let mut second = Box::pin(gate.attempt(Uuid::from_u128(2), Lane::Unknown));
        assert!(second.as_mut().now_or_never().is_none(), "the gate is held");
        assert!(!gate.unconfirmed().contains(&Uuid::from_u128(2)), "it has not begun");
        drop(held);
        second.await.stored();
    }

    #[tokio::test]
    async fn while_a_scattered_attempt_is_waited_for_the_main_lane_goes_on() {
        let gate = InsertGate::default();
        let scattered = gate.attempt(Uuid::from_u128(1), Lane::Scattered).await;
        let mut hold = Box::pin(gate.hold());
        assert!(hold.as_mut().now_or_never().is_none(), "an attempt is under way");
        let main = gate.attempt(Uuid::from_u128(2), Lane::Main).now_or_never().expect("the main lane is open");
        drop(scattered);
        assert!(hold.as_mut().now_or_never().is_none(), "another is under way");
        main.stored();
        let held = hold.await;
        for lane in [Lane::Main, Lane::Scattered] {
            assert!(gate.attempt(Uuid::from_u128(3), lane).now_or_never().is_none(), "{lane:?} is held");
        }
        drop(held);
    }
}
