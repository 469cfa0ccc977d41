//! Decides which event of which user is handed out next. Pure: the engine drives it.
//!
//! Each user has a lane. A lane has at most one *run* out at a time: consecutive events of its user. The results of a run
//! come back through [`Sequencer::finish`]; the caller decides when the lane continues ([`Sequencer::release`]).

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::lane::{Lane, Refused};
use crate::domain::{Event, EventState, GapPolicy, Gaps, LaneKey, Order, Position, UserStatus};
use crate::store::LaneRecord;

/// The time of the engine, in milliseconds since its start.
pub(super) type Millis = u64;

/// An event that has not ended.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) position: Position,
    pub(super) event: Arc<Event>,
    /// Attempts that failed.
    pub(super) attempts: u32,
    /// What the handler said to the last of them.
    pub(super) error: String,
    pub(super) is_replay: bool,
    /// When it was read.
    pub(super) read_at: Millis,
}

impl Pending {
    /// Orders events by how long they have been waiting, the oldest first.
    pub(super) fn age_key(&self) -> (u64, Millis) {
        (self.event.accepted_at_ms, self.read_at)
    }
}

/// The bounds of what waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneBounds {
    /// Early events of one user.
    pub(super) user_buffered_max: usize,
    /// Events that wait, of all users.
    pub(super) waiting_max: usize,
}

/// The lanes of a subscription: selects the next events to hand out. Pure: it is given the time.
pub(super) struct Sequencer {
    order: Order,
    gap_policy: GapPolicy,
    bounds: LaneBounds,
    lanes: HashMap<LaneKey, Lane>,
    /// Lanes that may have something to hand out, each once, in the order in which they came to that.
    ready: VecDeque<LaneKey>,
    is_ready: HashSet<LaneKey>,
    /// Lanes that are looked at again at a time: retries and gaps.
    timers: BTreeSet<(Millis, LaneKey)>,
    /// Lanes that have waited long enough for a missing seq, which may still be unread.
    overdue: HashSet<LaneKey>,
    /// Users of whom nothing is handed out until they are erased. That is not recorded.
    held: HashSet<LaneKey>,
    waiting: usize,
    skipped: u64,
    /// Lanes whose records have changed since they were last taken.
    changed: HashSet<LaneKey>,
}

impl Sequencer {
    pub(super) fn new(order: Order, gap_policy: GapPolicy, bounds: LaneBounds) -> Self {
        Self {
            order,
            gap_policy,
            bounds,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            is_ready: HashSet::new(),
            timers: BTreeSet::new(),
            overdue: HashSet::new(),
            held: HashSet::new(),
            waiting: 0,
            skipped: 0,
            changed: HashSet::new(),
        }
    }

    /// Other settings, from now on. In another order, what waits is ordered anew; returns what has no turn there.
    pub(super) fn set_policy(&mut self, order: Order, gap_policy: GapPolicy, now: Millis) -> Vec<Refused> {
        let is_other_order = self.order != order;
        (self.order, self.gap_policy) = (order, gap_policy);
        let mut refused = Vec::new();
        if is_other_order {
            let keys: Vec<LaneKey> = self.lanes.keys().cloned().collect();
            keys.iter().for_each(|key| refused.extend(self.reorder(key, now)));
        }
        let waiting: Vec<LaneKey> =
            self.lanes.iter().filter(|(_, lane)| lane.early() > 0).map(|(key, _)| key.clone()).collect();
        for key in waiting {
            self.note_gap(&key, now);
        }
        refused
    }

    /// Puts all that waits in a lane where the order of now has it. Returns what has no turn there.
    fn reorder(&mut self, key: &LaneKey, now: Millis) -> Vec<Refused> {
        let order = self.order;
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| lane.waiting() > 0) else { return Vec::new() };
        let waiting = lane.drain().into_iter();
        let place = |(pending, retry_at): (Pending, Option<Millis>)| {
            let seq = seq_of(order, &pending);
            lane.place(pending, seq, retry_at)
        };
        let refused: Vec<Refused> = waiting.filter_map(place).collect();
        self.waiting = self.waiting.saturating_sub(refused.len());
        self.bound(key);
        self.note_gap(key, now);
        self.wake(key);
        refused
    }

    pub(super) fn has_lane(&self, key: &LaneKey) -> bool {
        self.lanes.contains_key(key)
    }

    /// Makes a lane as it was recorded.
    pub(super) fn load(&mut self, key: LaneKey, record: LaneRecord) {
        self.lanes.entry(key).or_default().record = record;
    }

    pub(super) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Events that came before their turn.
    pub(super) fn buffered(&self) -> usize {
        self.lanes.values().map(Lane::early).sum()
    }

    pub(super) fn retrying(&self) -> usize {
        self.lanes.values().filter(|lane| lane.retry.is_some()).count()
    }

    /// The event that has waited longest, of those that are not out.
    pub(super) fn oldest(&self) -> Option<&Pending> {
        self.lanes.values().filter_map(Lane::oldest).min_by_key(|pending| pending.age_key())
    }

    /// Forgets lanes that have nothing to do and whose records are as they were stored.
    pub(super) fn forget_idle(&mut self) {
        let changed = &self.changed;
        self.lanes.retain(|key, lane| !lane.is_idle() || changed.contains(key));
    }

    /// Users that have something waiting or in flight.
    pub(super) fn busy_lanes(&self) -> usize {
        self.lanes.values().filter(|lane| !lane.is_idle()).count()
    }

    /// An event of this lane arrived, or was found in the store. It waits for its turn, unless it can have none.
    pub(super) fn offer(&mut self, key: LaneKey, pending: Pending, now: Millis) -> Option<Refused> {
        let seq = seq_of(self.order, &pending);
        // One that was tried before the restart is due.
        let retry_at = (pending.attempts > 0).then_some(now);
        let refused = self.lanes.entry(key.clone()).or_default().place(pending, seq, retry_at);
        if refused.is_some() {
            return refused;
        }
        self.waiting += 1;
        self.bound(&key);
        self.note_gap(&key, now);
        self.wake(&key);
        None
    }

    /// A user that is over its bound of early events waits for the missing seqs no longer.
    fn bound(&mut self, key: &LaneKey) {
        if self.lanes.get(key).map_or(0, Lane::early) > self.bounds.user_buffered_max {
            self.skip_gap(key);
        }
    }

    /// Whether as many events wait as may.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting >= self.bounds.waiting_max
    }

    /// When as many events wait as may, most of them for missing seqs, and none makes room: the user with the most of these
    /// waits for the missing seqs no longer. As long as others are handed out there will be room, and what is missing may be
    /// read then. Where the events of users that are paused or fail take up the room, what is missing may be behind them.
    pub(super) fn relieve(&mut self) {
        if self.lanes.values().any(Lane::makes_room) || 2 * self.buffered() <= self.waiting {
            return;
        }
        let can_go_on = |lane: &Lane| !lane.is_busy && !lane.record.is_paused && lane.retry.is_none();
        let most = self.lanes.iter().filter(|(_, lane)| can_go_on(lane)).map(|(key, lane)| (lane.early(), key)).max();
        if let Some((1.., key)) = most {
            let key = key.clone();
            self.skip_gap(&key);
        }
    }

    /// Goes on with the lowest seq that is there.
    fn skip_gap(&mut self, key: &LaneKey) {
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| !lane.is_busy && lane.retry.is_none()) else { return };
        let next = lane.record.next_seq;
        let Some(lowest) = lane.by_seq.keys().next().copied().filter(|lowest| *lowest > next) else { return };
        lane.record.gaps.add(next, lowest - 1);
        lane.record.skipped.add(next, lowest - 1);
        lane.record.next_seq = lowest;
        lane.waits_since = None;
        self.skipped += 1;
        self.changed.insert(key.clone());
        self.wake(key);
    }

    /// Notes since when a lane waits for a missing seq, and until when it does.
    fn note_gap(&mut self, key: &LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.waits_since = (lane.early() > 0).then(|| lane.waits_since.unwrap_or(now));
        if let (Some(since), GapPolicy::SkipAfterMs(wait)) = (lane.waits_since, self.gap_policy) {
            self.timers.insert((since.saturating_add(wait), key.clone()));
        }
    }

    /// Whether a lane has waited for a missing seq as long as it is to.
    fn is_overdue(&self, key: &LaneKey, now: Millis) -> bool {
        let since = self.lanes.get(key).and_then(|lane| lane.waits_since);
        matches!((since, self.gap_policy), (Some(since), GapPolicy::SkipAfterMs(wait)) if now >= since.saturating_add(wait))
    }

    fn wake(&mut self, key: &LaneKey) {
        if self.is_ready.insert(key.clone()) {
            self.ready.push_back(key.clone());
        }
    }

    /// When something is due that waits for its time.
    pub(super) fn next_timer(&self) -> Option<Millis> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Looks at what is due. Missing seqs are skipped only when the source is read to its end: what came before is known
    /// then.
    pub(super) fn tick(&mut self, now: Millis, is_at_end: bool) {
        while let Some((at, key)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key.clone()));
            if self.is_overdue(&key, now) {
                self.overdue.insert(key.clone());
            }
            self.wake(&key);
        }
        if is_at_end {
            for key in std::mem::take(&mut self.overdue) {
                if self.is_overdue(&key, now) {
                    self.skip_gap(&key);
                }
            }
        }
    }

    /// Whether missing seqs are skipped as soon as the source is read to its end.
    pub(super) fn has_overdue(&self) -> bool {
        !self.overdue.is_empty()
    }

    /// Whether a lane may have something to hand out.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the next run: at most so many events of one user in a row.
    pub(super) fn take_run(&mut self, events_max: usize, now: Millis) -> Option<(LaneKey, Vec<Pending>)> {
        while let Some(key) = self.ready.pop_front() {
            self.is_ready.remove(&key);
            let run = self.run_of(&key, events_max, now);
            if !run.is_empty() {
                return Some((key, run));
            }
        }
        None
    }

    fn run_of(&mut self, key: &LaneKey, events_max: usize, now: Millis) -> Vec<Pending> {
        let is_held = self.held.contains(key);
        let can_go_on = |lane: &&mut Lane| !is_held && !lane.is_busy && !lane.record.is_paused;
        let Some(lane) = self.lanes.get_mut(key).filter(can_go_on) else { return Vec::new() };
        let mut run = Vec::new();
        let mut next_seq = lane.record.next_seq;
        lane.out.clear();
        if let Some((pending, not_before)) = lane.retry.take() {
            if not_before > now {
                self.timers.insert((not_before, key.clone()));
                lane.retry = Some((pending, not_before));
                return Vec::new();
            }
            lane.out.extend(seq_of(self.order, &pending).filter(|seq| *seq == next_seq));
            // Alone, so that a failure does not keep others in flight.
            run.push(pending);
        } else {
            while run.len() < events_max
                && let Some((pending, is_by_seq)) = lane.take_next(next_seq)
            {
                if is_by_seq {
                    lane.out.push(next_seq);
                    next_seq += 1;
                }
                run.push(pending);
            }
        }
        if !run.is_empty() {
            lane.is_busy = true;
            self.waiting = self.waiting.saturating_sub(run.len());
        }
        run
    }

    /// An event of a run that is out has ended: its lane's record moves on, as the event was handed out. It has failed for
    /// good, or not.
    pub(super) fn finish(&mut self, key: &LaneKey, pending: &Pending, has_failed: bool) {
        let by_seq = seq_of(Order::PerUser, pending);
        let is_per_user = self.order == Order::PerUser;
        let Some(lane) = self.lanes.get_mut(key) else { return };
        let by_seq = by_seq.filter(|seq| lane.out.contains(seq) || (is_per_user && lane.is_turn_of(*seq)));
        if let Some(seq) = by_seq {
            lane.record.next_seq = lane.record.next_seq.max(seq + 1);
            lane.waits_since = None;
            if has_failed {
                lane.record.gaps.add(seq, seq);
            }
            self.changed.insert(key.clone());
        } else if pending.is_replay && !has_failed && pending.event.seq > 0 {
            lane.record.gaps.fill(pending.event.seq);
            if lane.record.skipped.has(pending.event.seq) == Some(true) {
                lane.record.skipped.fill(pending.event.seq);
            }
            self.changed.insert(key.clone());
        }
    }

    /// Puts events back that were not done, the last of a run: the first of them is tried again, not before the time, if it
    /// failed. Returns those that can have no turn in the order of now.
    pub(super) fn put_back(&mut self, key: &LaneKey, events: Vec<Pending>, retry_at: Option<Millis>) -> Vec<Refused> {
        let order = self.order;
        let Some(lane) = self.lanes.get_mut(key) else { return Vec::new() };
        lane.out.clear();
        self.waiting += events.len();
        self.timers.extend(retry_at.map(|at| (at, key.clone())));
        let times = std::iter::once(retry_at).chain(std::iter::repeat(None));
        let place = |(pending, retry_at): (Pending, Option<Millis>)| {
            let seq = seq_of(order, &pending);
            lane.place(pending, seq, retry_at)
        };
        let refused: Vec<Refused> = events.into_iter().zip(times).filter_map(place).collect();
        self.waiting = self.waiting.saturating_sub(refused.len());
        refused
    }

    /// The lane's run has ended: it may hand out the next.
    pub(super) fn release(&mut self, key: &LaneKey, now: Millis) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.is_busy = false;
        lane.out.clear();
        if lane.is_idle() && key.is_anonymous() {
            self.lanes.remove(key);
            return;
        }
        if lane.has_next() || lane.retry.is_some() {
            self.wake(key);
        }
        self.bound(key);
        self.note_gap(key, now);
    }

    /// The missing seqs of a user.
    pub(super) fn gaps(&self, key: &LaneKey) -> Gaps {
        self.lanes.get(key).map(|lane| lane.record.gaps.clone()).unwrap_or_default()
    }

    /// Pauses a user, or lets it go on.
    pub(super) fn set_paused(&mut self, key: &LaneKey, is_paused: bool) {
        self.lanes.entry(key.clone()).or_default().record.is_paused = is_paused;
        self.changed.insert(key.clone());
        self.wake(key);
    }

    /// Hands out nothing more of a user, until its lane is removed.
    pub(super) fn hold(&mut self, key: &LaneKey) {
        self.held.insert(key.clone());
    }

    /// Whether nothing of a lane is out.
    pub(super) fn is_home(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_none_or(|lane| !lane.is_busy)
    }

    /// Forgets a lane, nothing of which is out. Returns what waits in it.
    pub(super) fn remove(&mut self, key: &LaneKey) -> Vec<Pending> {
        self.changed.remove(key);
        self.held.remove(key);
        let Some(lane) = self.lanes.remove(key) else { return Vec::new() };
        self.waiting = self.waiting.saturating_sub(lane.waiting());
        let retry = lane.retry.into_iter().map(|(pending, _)| pending);
        retry.chain(lane.line).chain(lane.by_seq.into_values()).collect()
    }

    /// The records that have changed since the last call.
    pub(super) fn take_changed(&mut self) -> Vec<(LaneKey, LaneRecord)> {
        let changed = std::mem::take(&mut self.changed);
        let record = |key: LaneKey| self.lanes.get(&key).map(|lane| (key.clone(), lane.record.clone()));
        changed.into_iter().filter_map(record).collect()
    }

    pub(super) fn user(&self, key: &LaneKey) -> Option<UserStatus> {
        let lane = self.lanes.get(key)?;
        Some(UserStatus {
            next_seq: lane.record.next_seq,
            waiting: (lane.waiting() + lane.out.len()) as u64,
            lowest_buffered_seq: lane.by_seq.keys().next().copied().filter(|_| lane.early() > 0).unwrap_or_default(),
            gaps: lane.record.gaps.clone(),
            is_paused: lane.record.is_paused || self.held.contains(key),
        })
    }

    /// Where an event is, and how often it was tried. One that is not here is in flight or unknown.
    pub(super) fn find(&self, key: &LaneKey, event_id: &str) -> Option<(EventState, &Pending)> {
        let lane = self.lanes.get(key)?;
        if let Some((pending, _)) = lane.retry.as_ref().filter(|(pending, _)| pending.event.id == event_id) {
            return Some((EventState::Pending, pending));
        }
        let in_line = lane.line.iter().find(|pending| pending.event.id == event_id);
        if let Some(pending) = in_line {
            return Some((EventState::Pending, pending));
        }
        let pending = lane.by_seq.values().find(|pending| pending.event.id == event_id)?;
        let waiting_for_seq = lane.first_missing();
        let is_early = pending.event.seq > waiting_for_seq;
        let state = if is_early { EventState::Buffered { waiting_for_seq } } else { EventState::Pending };
        Some((state, pending))
    }
}

/// The seq that an event is ordered by.
fn seq_of(order: Order, Pending { event, is_replay, .. }: &Pending) -> Option<u64> {
    (order == Order::PerUser && event.seq > 0 && !is_replay && !event.user_id.is_empty()).then_some(event.seq)
}

#[cfg(test)]
mod tests;
