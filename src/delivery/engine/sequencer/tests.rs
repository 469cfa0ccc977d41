//! Tests the sequencer with times that are given.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::domain::DeadLetterReason;

const BOUNDS: LaneBounds = LaneBounds { user_buffered_max: 3, waiting_max: 1_000 };

fn ann() -> LaneKey {
    LaneKey::of_user("ann")
}

fn pending(row: u64, seq: u64) -> Pending {
    let event = Event { id: format!("ann-{row}"), user_id: "ann".to_owned(), seq, ..Event::default() };
    Pending {
        position: Position { segment: 1, row },
        event: Arc::new(event),
        attempts: 0,
        error: String::new(),
        is_replay: false,
        read_at: 0,
    }
}

/// Takes the next run, which is of one event, and returns it.
fn take(sequencer: &mut Sequencer, now: Millis) -> Pending {
    let (_, mut run) = sequencer.take_run(1, now).expect("a run");
    run.pop().expect("an event")
}

fn end(sequencer: &mut Sequencer, pending: &Pending, now: Millis) {
    sequencer.finish(&ann(), pending, false);
    sequencer.release(&ann(), now);
}

#[test]
fn events_without_seq_do_not_prolong_the_wait_for_a_missing_one() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::SkipAfterMs(60_000), BOUNDS);
    sequencer.offer(ann(), pending(1, 2), 0);
    for now in [20_000, 50_000] {
        sequencer.offer(ann(), pending(now, 0), now);
        let out = take(&mut sequencer, now);
        end(&mut sequencer, &out, now + 1_000);
    }
    sequencer.tick(59_999, true);
    assert_eq!(sequencer.skipped(), 0);
    sequencer.tick(60_000, true);
    assert_eq!(sequencer.skipped(), 1);
    assert_eq!(take(&mut sequencer, 60_000).event.seq, 2);
}

#[test]
fn a_wait_that_ends_while_the_user_is_served_ends_with_that() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::SkipAfterMs(100), BOUNDS);
    sequencer.offer(ann(), pending(1, 2), 0);
    sequencer.offer(ann(), pending(2, 0), 90);
    let out = take(&mut sequencer, 90);
    sequencer.tick(100, true);
    assert_eq!(sequencer.skipped(), 0, "an event is out");
    end(&mut sequencer, &out, 110);
    assert!(sequencer.next_timer().is_some_and(|at| at <= 110));
    sequencer.tick(110, true);
    assert_eq!(sequencer.skipped(), 1);
}

#[test]
fn a_user_that_passes_its_bound_while_it_is_served_is_skipped_with_that() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::Wait, BOUNDS);
    sequencer.offer(ann(), pending(1, 1), 0);
    let out = take(&mut sequencer, 0);
    for seq in [3, 4, 5, 6] {
        sequencer.offer(ann(), pending(seq, seq), 0);
    }
    assert_eq!(sequencer.skipped(), 0, "an event is out");
    end(&mut sequencer, &out, 1);
    assert_eq!(sequencer.skipped(), 1);
    assert_eq!(take(&mut sequencer, 1).event.seq, 3);
}

#[test]
fn a_missing_seq_is_skipped_once_the_source_is_read_to_its_end() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::SkipAfterMs(100), BOUNDS);
    sequencer.offer(ann(), pending(1, 2), 0);
    sequencer.tick(99, true);
    sequencer.tick(100, false);
    sequencer.tick(150, false);
    assert!(sequencer.skipped() == 0 && sequencer.has_overdue());
    sequencer.tick(160, true);
    assert!(sequencer.skipped() == 1 && !sequencer.has_overdue());
}

#[test]
fn a_seq_that_is_read_late_is_not_skipped() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::SkipAfterMs(100), BOUNDS);
    sequencer.offer(ann(), pending(1, 2), 0);
    sequencer.tick(100, false);
    sequencer.offer(ann(), pending(2, 1), 150);
    sequencer.tick(160, true);
    assert_eq!(sequencer.skipped(), 0);
    assert_eq!(take(&mut sequencer, 160).event.seq, 1);
}

#[test]
fn a_seq_of_a_skip_that_is_not_named_any_more_is_late_and_a_newer_one_repeated() {
    let mut sequencer = Sequencer::new(Order::PerUser, GapPolicy::SkipAfterMs(1), BOUNDS);
    // Every second seq is skipped.
    for n in 1..=150 {
        sequencer.offer(ann(), pending(n, 2 * n), 2 * n);
        sequencer.tick(2 * n + 1, true);
        let out = take(&mut sequencer, 2 * n + 1);
        end(&mut sequencer, &out, 2 * n + 1);
    }
    let mut reason_of =
        |seq: u64| sequencer.offer(ann(), pending(1_000 + seq, seq), 1_000).map(|refused| refused.reason);
    assert_eq!(reason_of(1), Some(DeadLetterReason::SeqLate));
    assert_eq!(reason_of(299), Some(DeadLetterReason::SeqLate));
    assert_eq!(reason_of(298), Some(DeadLetterReason::SeqRepeated));
    assert_eq!(reason_of(302), None);
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u64),
    Take(usize),
    /// So many events of the run are done; then one fails, or none was tried.
    End(usize, bool),
    Reorder(Order),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8_u64).prop_map(Step::Offer),
        3 => (1..4_usize).prop_map(Step::Take),
        3 => (0..4_usize, any::<bool>()).prop_map(|(done, fails)| Step::End(done, fails)),
        1 => prop_oneof![Just(Order::PerUser), Just(Order::Arrival)].prop_map(Step::Reorder),
    ]
}

/// A sequencer and what became of the events that it was offered.
struct Model {
    sequencer: Sequencer,
    offered: u64,
    run: Vec<Pending>,
    ended: Vec<Pending>,
    refused: Vec<Pending>,
}

impl Model {
    fn new() -> Self {
        let sequencer = Sequencer::new(Order::PerUser, GapPolicy::Wait, BOUNDS);
        Self { sequencer, offered: 0, run: Vec::new(), ended: Vec::new(), refused: Vec::new() }
    }

    fn refuse(&mut self, refused: impl IntoIterator<Item = Refused>) {
        self.refused.extend(refused.into_iter().map(|refused| refused.pending));
    }

    fn take(&mut self, events_max: usize) {
        if self.run.is_empty() {
            self.run = self.sequencer.take_run(events_max, 0).map(|(_, run)| run).unwrap_or_default();
        }
    }

    fn end(&mut self, done: usize, fails: bool) {
        if self.run.is_empty() {
            return;
        }
        let mut rest = self.run.split_off(done.min(self.run.len()));
        self.run.iter().for_each(|pending| self.sequencer.finish(&ann(), pending, false));
        self.ended.append(&mut self.run);
        if let Some(first) = rest.first_mut() {
            first.attempts += u32::from(fails);
        }
        let retry_at = rest.first().and_then(|first| (first.attempts > 0).then_some(0));
        let refused = self.sequencer.put_back(&ann(), rest, retry_at);
        self.refuse(refused);
        self.sequencer.release(&ann(), 0);
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Offer(seq) => {
                self.offered += 1;
                let refused = self.sequencer.offer(ann(), pending(self.offered, seq), 0);
                self.refuse(refused);
            }
            Step::Take(events_max) => self.take(events_max),
            Step::End(done, fails) => self.end(done, fails),
            Step::Reorder(order) => {
                let refused = self.sequencer.set_policy(order, GapPolicy::Wait, 0);
                self.refuse(refused);
            }
        }
    }

    fn seqs_ended(&self) -> Vec<u64> {
        self.ended.iter().map(|pending| pending.event.seq).filter(|seq| *seq > 0).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn each_event_ends_once_or_is_refused_whatever_becomes_of_the_order(
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut model = Model::new();
        steps.iter().for_each(|step| model.play(step));
        if !steps.iter().any(|step| matches!(step, Step::Reorder(_))) {
            prop_assert!(model.seqs_ended().is_sorted_by(|before, after| before < after), "{:?}", model.seqs_ended());
        }
        // In the order of arrival nothing waits for anything.
        model.end(usize::MAX, false);
        model.play(&Step::Reorder(Order::Arrival));
        while model.sequencer.has_ready() {
            model.take(3);
            model.end(usize::MAX, false);
        }
        prop_assert_eq!(model.sequencer.waiting(), 0);
        let all: Vec<u64> = model.ended.iter().chain(&model.refused).map(|pending| pending.position.row).collect();
        prop_assert_eq!(all.len() as u64, model.offered);
        prop_assert_eq!(all.into_iter().collect::<HashSet<u64>>().len() as u64, model.offered);
    }
}
