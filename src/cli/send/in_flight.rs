//! Batches that were read and not answered yet.
//!
//! A batch stays here until its answer has arrived, over any number of connections. It is safe to send a
//! batch again, since events that were accepted before are answered as duplicates. No I/O happens here.

use std::collections::VecDeque;

use tokio::time::Instant;

/// Batches in flight, in order, and batches that wait to be sent again.
#[derive(Debug)]
pub struct InFlight<B> {
    /// The most batches that are held, which bounds memory.
    batches_max: usize,
    /// Sequence and batch, oldest first.
    unanswered: VecDeque<(u64, B)>,
    /// How many of them, from the front, were sent on the current connection.
    sent: usize,
    sequence_next: u64,
    /// Undecided batches, and when to send them again.
    postponed: VecDeque<(Instant, B)>,
}

/// An answer out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service answered batch {got} out of order")]
pub struct OutOfOrder {
    /// The sequence of the answer.
    pub got: u64,
}

impl<B> InFlight<B> {
    /// Holds at most `batches_max` batches (at least one).
    pub fn new(batches_max: usize) -> Self {
        Self {
            batches_max: batches_max.max(1),
            unanswered: VecDeque::new(),
            sent: 0,
            sequence_next: 1,
            postponed: VecDeque::new(),
        }
    }

    /// Whether another batch may be read.
    pub fn has_room(&self) -> bool {
        self.unanswered.len() + self.postponed.len() < self.batches_max
    }

    /// Whether every batch has its final answer.
    pub fn is_empty(&self) -> bool {
        self.unanswered.is_empty() && self.postponed.is_empty()
    }

    /// Adds a batch that was read.
    pub fn push(&mut self, batch: B) {
        self.unanswered.push_back((self.sequence_next, batch));
        self.sequence_next += 1;
    }

    /// Whether there is something to send on this connection.
    pub fn has_unsent(&self) -> bool {
        self.sent < self.unanswered.len()
    }

    /// The next batch to send on this connection; from then on it counts as
    /// sent.
    pub fn next_to_send(&mut self) -> Option<(u64, &B)> {
        let (sequence, batch) = self.unanswered.get(self.sent)?;
        self.sent += 1;
        Some((*sequence, batch))
    }

    /// Returns the batch that was answered. Answers come in the order of the requests.
    pub fn answered(&mut self, sequence: u64) -> Result<B, OutOfOrder> {
        match self.unanswered.pop_front_if(|(front, _)| self.sent > 0 && *front == sequence) {
            Some((_, batch)) => {
                self.sent -= 1;
                Ok(batch)
            }
            None => Err(OutOfOrder { got: sequence }),
        }
    }

    /// Starts a new connection: unanswered batches are sent again in the same order.
    pub fn reconnect(&mut self) {
        self.sent = 0;
    }

    /// Postpones a batch until `due`.
    pub fn postpone(&mut self, due: Instant, batch: B) {
        self.postponed.push_back((due, batch));
    }

    /// When the next postponed batch is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.postponed.front().map(|(due, _)| *due)
    }

    /// Moves postponed batches that are due back into the queue.
    pub fn revive(&mut self, now: Instant) {
        while let Some((_, batch)) = self.postponed.pop_front_if(|(due, _)| *due <= now) {
            self.push(batch);
        }
    }

    /// All batches: unanswered ones, then postponed ones.
    pub fn held(&self) -> (impl Iterator<Item = &B>, impl Iterator<Item = &B>) {
        (self.unanswered.iter().map(|(_, batch)| batch), self.postponed.iter().map(|(_, batch)| batch))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// What can happen to a sender.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Read,
        Send,
        Answer,
        Undecided,
        Cut,
        Wait,
    }

    fn step() -> impl Strategy<Value = Step> {
        use Step::{Answer, Cut, Read, Send, Undecided, Wait};
        prop::sample::select(vec![Read, Read, Send, Send, Send, Answer, Answer, Undecided, Cut, Wait])
    }

    proptest! {
        /// The service's side is modelled as the requests of one connection.
        #[test]
        fn nothing_is_lost_or_overtakes_however_often_the_connection_is_cut(
            steps in prop::collection::vec(step(), 0..400),
            batches_max in 1_usize..6,
        ) {
            let start = Instant::now();
            let (mut now, mut read, mut decided) = (start, 0_u32, Vec::new());
            let mut flight = InFlight::new(batches_max);
            let mut wire: VecDeque<u64> = VecDeque::new();
            // Then everything goes well, for as long as it takes.
            let epilogue = [Step::Send, Step::Answer, Step::Wait].into_iter().cycle().take(30 * batches_max);
            for step in steps.into_iter().chain(epilogue) {
                match step {
                    Step::Read if flight.has_room() => { flight.push(read); read += 1; }
                    Step::Send => {
                        let may = flight.has_unsent();
                        let next = flight.next_to_send().map(|(sequence, _)| sequence);
                        prop_assert_eq!(may, next.is_some());
                        if let Some(sequence) = next {
                            prop_assert!(wire.back().is_none_or(|last| *last + 1 == sequence), "a gap on the wire");
                            wire.push_back(sequence);
                        }
                    }
                    Step::Answer => if let Some(sequence) = wire.pop_front() {
                        decided.push(flight.answered(sequence).unwrap());
                    }
                    Step::Undecided => if let Some(sequence) = wire.pop_front() {
                        let batch = flight.answered(sequence).unwrap();
                        flight.postpone(now + Duration::from_secs(1), batch);
                    }
                    Step::Cut => { wire.clear(); flight.reconnect(); }
                    Step::Wait => { now += Duration::from_secs(1); flight.revive(now); }
                    Step::Read => {}
                }
                let (unanswered, postponed) = flight.held();
                prop_assert!(unanswered.count() + postponed.count() <= batches_max);
            }
            prop_assert!(flight.is_empty());
            decided.sort_unstable();
            prop_assert_eq!(decided, (0..read).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_answer_out_of_turn_is_refused() {
        let mut flight = InFlight::new(4);
        flight.push('a');
        flight.push('b');
        assert_eq!(flight.answered(1), Err(OutOfOrder { got: 1 }), "it was not sent yet");
        assert_eq!(flight.next_to_send(), Some((1, &'a')));
        assert_eq!(flight.next_to_send(), Some((2, &'b')));
        assert_eq!(flight.next_to_send(), None);
        assert_eq!(flight.answered(2), Err(OutOfOrder { got: 2 }));
        flight.reconnect();
        assert_eq!(flight.answered(1), Err(OutOfOrder { got: 1 }), "an answer to a request of the connection before");
        assert_eq!(flight.next_to_send(), Some((1, &'a')));
        assert_eq!(flight.answered(1), Ok('a'));
    }
}
