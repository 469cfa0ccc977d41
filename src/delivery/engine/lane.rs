//! A user's lane: its events that wait, and which of them is next. Pure.

use std::collections::{BTreeMap, VecDeque};

use super::sequencer::{Millis, Pending};
use crate::domain::DeadLetterReason;
use crate::store::LaneRecord;

/// An event whose seq can have no turn any more.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) pending: Pending,
    pub(super) reason: DeadLetterReason,
    pub(super) error: String,
}

#[derive(Default)]
pub(super) struct Lane {
    pub(super) record: LaneRecord,
    /// The event that is tried again first, not before the time.
    pub(super) retry: Option<(Pending, Millis)>,
    /// Events without seq, in the order of arrival.
    pub(super) line: VecDeque<Pending>,
    /// Events with seq that have not had their turn.
    pub(super) by_seq: BTreeMap<u64, Pending>,
    /// Whether a run is out.
    pub(super) is_busy: bool,
    /// The seqs of the run that is out, as far as it was handed out by them.
    pub(super) out: Vec<u64>,
    /// Since when a missing seq is waited for.
    pub(super) waits_since: Option<Millis>,
}

impl Lane {
    pub(super) fn is_idle(&self) -> bool {
        !self.is_busy && self.waiting() == 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.line.len() + self.by_seq.len() + usize::from(self.retry.is_some())
    }

    /// Puts an event where it waits for its turn. `seq` is what it is ordered by. One that is tried again comes first of all,
    /// not before `retry_at`; but it waits for the seqs before its own as others do.
    pub(super) fn place(&mut self, pending: Pending, seq: Option<u64>, retry_at: Option<Millis>) -> Option<Refused> {
        let next_seq = self.record.next_seq;
        if let Some(at) = retry_at
            && self.retry.is_none()
            && seq.is_none_or(|seq| seq <= next_seq)
        {
            self.retry = Some((pending, at));
            return None;
        }
        let Some(seq) = seq else {
            let at = self.line.partition_point(|other| other.position < pending.position);
            self.line.insert(at, pending);
            return None;
        };
        if seq < next_seq {
            let (reason, error) = self.why_passed(seq);
            return Some(Refused { pending, reason, error });
        }
        if self.by_seq.contains_key(&seq) || self.out.contains(&seq) || self.is_retried(seq) {
            let error = format!("another event of this user has seq {seq}");
            return Some(Refused { pending, reason: DeadLetterReason::SeqRepeated, error });
        }
        self.by_seq.insert(seq, pending);
        None
    }

    /// Why a seq that was passed has no turn any more.
    fn why_passed(&self, seq: u64) -> (DeadLetterReason, String) {
        match self.record.skipped.has(seq) {
            Some(true) => (DeadLetterReason::SeqLate, format!("seq {seq} was skipped before it came")),
            None => {
                let error = format!("seq {seq} was skipped before it came, or another event of this user had it");
                (DeadLetterReason::SeqLate, error)
            }
            Some(false) => (DeadLetterReason::SeqRepeated, format!("another event of this user had seq {seq}")),
        }
    }

    /// Takes everything that waits, in the order of arrival but for what is tried again, each with the time before which it
    /// is not tried again.
    pub(super) fn drain(&mut self) -> Vec<(Pending, Option<Millis>)> {
        let retry = self.retry.take().map(|(pending, at)| (pending, Some(at)));
        let by_seq = std::mem::take(&mut self.by_seq).into_values();
        let mut waiting: Vec<Pending> = self.line.drain(..).chain(by_seq).collect();
        waiting.sort_unstable_by_key(|pending| pending.position);
        retry.into_iter().chain(waiting.into_iter().map(|pending| (pending, None))).collect()
    }

    /// Takes the event whose turn it is, as if `next_seq` were that: the one that arrived first, of those with and without
    /// seq. Says whether it was taken by its seq.
    pub(super) fn take_next(&mut self, next_seq: u64) -> Option<(Pending, bool)> {
        let in_order = self.by_seq.get(&next_seq).map(|pending| pending.position);
        match (in_order, self.line.front().map(|pending| pending.position)) {
            (Some(with), without) if without.is_none_or(|without| with < without) => {
                self.by_seq.remove(&next_seq).map(|pending| (pending, true))
            }
            (_, Some(_)) => self.line.pop_front().map(|pending| (pending, false)),
            _ => None,
        }
    }

    /// Whether an event that has ended moves the lane on: it was handed out by its seq, or in another order when it was the
    /// seq's turn.
    pub(super) fn is_turn_of(&self, seq: u64) -> bool {
        self.out.contains(&seq) || (seq == self.record.next_seq && !self.by_seq.contains_key(&seq))
    }

    /// The event that has waited longest.
    pub(super) fn oldest(&self) -> Option<&Pending> {
        let retry = self.retry.iter().map(|(pending, _)| pending);
        retry.chain(self.line.front()).chain(self.by_seq.values()).min_by_key(|pending| pending.age_key())
    }

    pub(super) fn has_next(&self) -> bool {
        !self.line.is_empty() || self.by_seq.contains_key(&self.record.next_seq)
    }

    /// Whether events of this lane are handed out, or are as soon as the handler has a place for them.
    pub(super) fn makes_room(&self) -> bool {
        self.is_busy || (!self.record.is_paused && self.retry.is_none() && self.has_next())
    }

    /// Events that wait for a missing seq.
    pub(super) fn early(&self) -> usize {
        let next_seq = match self.out.last() {
            Some(last) => self.record.next_seq.max(last + 1),
            None => self.record.next_seq + u64::from(self.is_retried(self.record.next_seq)),
        };
        let is_next = self.by_seq.keys().next().is_none_or(|lowest| *lowest <= next_seq);
        if is_next { 0 } else { self.by_seq.len() }
    }

    pub(super) fn is_retried(&self, seq: u64) -> bool {
        self.retry.as_ref().is_some_and(|(pending, _)| pending.event.seq == seq && !pending.is_replay)
    }

    /// The lowest seq that has neither come nor ended.
    pub(super) fn first_missing(&self) -> u64 {
        let mut seq = self.record.next_seq;
        while self.by_seq.contains_key(&seq) || self.out.contains(&seq) || self.is_retried(seq) {
            seq += 1;
        }
        seq
    }
}
