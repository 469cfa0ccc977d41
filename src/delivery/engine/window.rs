//! Tracks which events that were read have ended: where reading of the source resumes after a crash, and which events are
//! left out then.

use std::collections::VecDeque;
use std::sync::Arc;

use super::sequencer::Millis;
use crate::domain::{Event, Position};
use crate::store::Cursor;

#[derive(Debug)]
enum State {
    /// It has not ended, and the store does not have it. It was read at this time.
    Open(Arc<Event>, Millis),
    /// It has ended, or the store has it.
    Settled,
}

/// The events from the first that has not ended to the last that was read, in the order of their positions.
#[derive(Debug)]
pub(super) struct Window {
    slots: VecDeque<(Position, State)>,
    /// Where to read on.
    next: Position,
    /// What had ended behind that when the engine was started.
    former: Vec<(Position, Position)>,
}

impl Window {
    /// Begins where the store says.
    pub(super) fn new(cursor: Cursor) -> Self {
        Self { slots: VecDeque::new(), next: cursor.resume, former: cursor.settled }
    }

    /// Whether an event that is read now ended before the engine was started. It is noted, if it did.
    pub(super) fn has_ended(&mut self, position: Position) -> bool {
        let at = self.former.partition_point(|(_, last)| *last < position);
        let has_ended = self.former.get(at).is_some_and(|(first, _)| *first <= position);
        if has_ended && !self.slots.is_empty() {
            self.slots.push_back((position, State::Settled));
        }
        has_ended
    }

    /// Where to read on.
    pub(super) const fn next(&self) -> Position {
        self.next
    }

    /// Read up to there.
    pub(super) fn advance(&mut self, next: Position) {
        self.next = self.next.max(next);
        let next = self.next;
        self.former.retain(|(_, last)| *last >= next);
    }

    /// Everything before has ended, or the store has it.
    pub(super) fn resume(&self) -> Position {
        self.slots.front().map_or(self.next, |(position, _)| *position)
    }

    /// Events between the first that has not ended and the last that was read.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// An event that was read now has not ended.
    pub(super) fn open(&mut self, position: Position, event: Arc<Event>, now: Millis) {
        self.slots.push_back((position, State::Open(event, now)));
    }

    /// When the first event that has not ended was read.
    pub(super) fn oldest_read_at(&self) -> Option<Millis> {
        match self.slots.front()?.1 {
            State::Open(_, read_at) => Some(read_at),
            State::Settled => None, // It would not be there.
        }
    }

    /// The event at this position has ended, or the store is about to have it.
    pub(super) fn settle(&mut self, position: Position) {
        let Ok(at) = self.slots.binary_search_by_key(&position, |(position, _)| *position) else { return };
        if let Some(slot) = self.slots.get_mut(at) {
            slot.1 = State::Settled;
        }
        while matches!(self.slots.front(), Some((_, State::Settled))) {
            self.slots.pop_front();
        }
    }

    /// Whether the store does not have the event at this position.
    pub(super) fn is_open(&self, position: Position) -> bool {
        let at = self.slots.binary_search_by_key(&position, |(position, _)| *position);
        at.is_ok_and(|at| matches!(self.slots.get(at), Some((_, State::Open(..)))))
    }

    /// The oldest open events, at most so many.
    pub(super) fn oldest_open(&self, count: usize) -> Vec<(Position, Arc<Event>)> {
        let open = self.slots.iter().filter_map(|(position, state)| match state {
            State::Open(event, _) => Some((*position, Arc::clone(event))),
            State::Settled => None,
        });
        open.take(count).collect()
    }

    /// What the store is to record.
    pub(super) fn cursor(&self) -> Cursor {
        let resume = self.resume();
        let mut settled: Vec<(Position, Position)> = Vec::new();
        let mut goes_on = false;
        for (position, state) in &self.slots {
            if matches!(state, State::Open(..)) {
                goes_on = false;
                continue;
            }
            match settled.last_mut().filter(|_| goes_on) {
                Some(range) => range.1 = *position,
                None => settled.push((*position, *position)),
            }
            goes_on = true;
        }
        settled.extend(&self.former);
        Cursor { resume, settled, missed: 0 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(row: u64) -> Position {
        Position { segment: 1, row }
    }

    proptest! {
        #[test]
        fn a_cursor_says_of_every_event_whether_it_is_read_again(
            count in 0..60_u64,
            settled in prop::collection::vec(0..60_u64, 0..60),
        ) {
            let mut window = Window::new(Cursor { resume: at(0), ..Cursor::default() });
            let read = |window: &mut Window, rows: std::ops::Range<u64>| {
                for row in rows {
                    if !window.has_ended(at(row)) {
                        window.open(at(row), Arc::default(), 0);
                    }
                    window.advance(at(row + 1));
                }
            };
            read(&mut window, 0..count);
            let (before, after) = settled.split_at(settled.len() / 2);
            before.iter().for_each(|row| window.settle(at(*row)));
            // A restart, after which a part is read again.
            let mut window = Window::new(window.cursor());
            let part = window.next().row..(count / 2).max(window.next().row);
            read(&mut window, part);
            let mut settled: std::collections::HashSet<u64> = before.iter().copied().collect();
            for row in after {
                if window.is_open(at(*row)) {
                    window.settle(at(*row));
                    settled.insert(*row);
                }
            }
            let cursor = window.cursor();
            for row in 0..count {
                prop_assert_eq!(cursor.is_settled(at(row)), settled.contains(&row), "{} {:?}", row, &cursor);
            }
            prop_assert!(cursor.resume <= at(count));
        }
    }
}
