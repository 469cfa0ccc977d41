//! Decides which event of which user is handed out next. Pure: the engine drives it.
//!
//! Each user has a lane. A lane has at most one *run* out at a time: consecutive events of its user. The results of a run
//! come back through [`Sequencer::finish`]; the caller decides when the lane continues ([`Sequencer::release`]).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::domain::{DeadLetterReason, Event, EventState, GapPolicy, Gaps, LaneKey, Order, Position, UserStatus};
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

/// What became of an event that was offered.
#[derive(Debug)]
pub(super) enum Offered {
    /// It waits for its turn.
    Queued,
    /// Its seq can have no turn any more.
    Refused(Pending, DeadLetterReason, String),
}

#[derive(Default)]
struct Lane {
    record: LaneRecord,
    /// The event that is tried again first, not before the time.
    retry: Option<(Pending, Millis)>,
    /// Events without seq, in the order of arrival.
    line: VecDeque<Pending>,
    /// Events with seq that have not had their turn.
    by_seq: BTreeMap<u64, Pending>,
    /// Whether a run is out.
    is_busy: bool,
    /// The seqs of the run that is out.
    out: Vec<u64>,
    /// Since when a missing seq is waited for.
    waits_since: Option<Millis>,
}

impl Lane {
    fn is_idle(&self) -> bool {
        !self.is_busy && self.retry.is_none() && self.line.is_empty() && self.by_seq.is_empty()
    }

    fn waiting(&self) -> usize {
        self.line.len() + self.by_seq.len() + usize::from(self.retry.is_some())
    }

    /// Takes the event whose turn it is, as if `next_seq` were that. The one that arrived first, of those with and
    /// without seq.
    fn take_next(&mut self, next_seq: &mut u64) -> Option<Pending> {
        let in_order = self.by_seq.get(next_seq).map(|pending| pending.position);
        match (in_order, self.line.front().map(|pending| pending.position)) {
            (Some(with), without) if without.is_none_or(|without| with < without) => {
                let taken = self.by_seq.remove(next_seq);
                *next_seq += 1;
                taken
            }
            (_, Some(_)) => self.line.pop_front(),
            _ => None,
        }
    }

    /// The event that has waited longest.
    fn oldest(&self) -> Option<&Pending> {
        let retry = self.retry.iter().map(|(pending, _)| pending);
        retry.chain(self.line.front()).chain(self.by_seq.values()).min_by_key(|pending| pending.age_key())
    }

    fn has_next(&self) -> bool {
        !self.line.is_empty() || self.by_seq.contains_key(&self.record.next_seq)
    }

    /// Whether events of this lane are handed out, or are as soon as the handler has a place for them.
    fn makes_room(&self) -> bool {
        self.is_busy || (!self.record.is_paused && self.retry.is_none() && self.has_next())
    }

    /// Events that wait for a missing seq.
    fn early(&self) -> usize {
        let next_seq = self.out.last().map_or(self.record.next_seq, |last| self.record.next_seq.max(last + 1));
        let is_next = self.by_seq.keys().next().is_none_or(|lowest| *lowest <= next_seq);
        if is_next || self.retry.is_some() { 0 } else { self.by_seq.len() }
    }
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
            waiting: 0,
            skipped: 0,
            changed: HashSet::new(),
        }
    }

    /// Other settings, from now on.
    pub(super) fn set_policy(&mut self, order: Order, gap_policy: GapPolicy, now: Millis) {
        (self.order, self.gap_policy) = (order, gap_policy);
        let waiting: Vec<LaneKey> =
            self.lanes.iter().filter(|(_, lane)| lane.early() > 0).map(|(key, _)| key.clone()).collect();
        for key in waiting {
            self.note_gap(&key, now);
        }
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

    /// An event of this lane arrived, or was found in the store.
    pub(super) fn offer(&mut self, key: LaneKey, pending: Pending, now: Millis) -> Offered {
        let seq = self.seq_of(&pending);
        let lane = self.lanes.entry(key.clone()).or_default();
        if pending.attempts > 0 {
            // It was tried before the restart: it is its turn.
            lane.retry = Some((pending, now));
            self.waiting += 1;
            self.wake(&key);
            return Offered::Queued;
        }
        match seq {
            None => {
                let at = lane.line.partition_point(|other| other.position < pending.position);
                lane.line.insert(at, pending);
            }
            Some(seq) if seq < lane.record.next_seq => {
                let (reason, error) = if lane.record.skipped.ranges().iter().any(|(a, b)| (*a..=*b).contains(&seq)) {
                    (DeadLetterReason::SeqLate, format!("seq {seq} was skipped before it came"))
                } else {
                    (DeadLetterReason::SeqRepeated, format!("another event of this user had seq {seq}"))
                };
                return Offered::Refused(pending, reason, error);
            }
            Some(seq) if lane.by_seq.contains_key(&seq) || lane.out.contains(&seq) || lane.is_retried(seq) => {
                let error = format!("another event of this user has seq {seq}");
                return Offered::Refused(pending, DeadLetterReason::SeqRepeated, error);
            }
            Some(seq) => {
                lane.by_seq.insert(seq, pending);
            }
        }
        self.waiting += 1;
        self.bound(&key);
        self.note_gap(&key, now);
        self.wake(&key);
        Offered::Queued
    }

    /// The seq that an event is ordered by.
    fn seq_of(&self, pending: &Pending) -> Option<u64> {
        let seq = pending.event.seq;
        (self.order == Order::PerUser && seq > 0 && !pending.is_replay && !pending.event.user_id.is_empty())
            .then_some(seq)
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

    /// When as many events wait as may, and none of them makes room: the user with the most early events waits for the
    /// missing seqs no longer. As long as others are handed out there will be room, and what is missing may be read then.
    pub(super) fn relieve(&mut self) {
        if self.lanes.values().any(Lane::makes_room) {
            return;
        }
        let most = self.lanes.iter().filter(|(_, lane)| !lane.is_busy).map(|(key, lane)| (lane.early(), key)).max();
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
        let is_waiting = !lane.is_busy && lane.retry.is_none() && lane.early() > 0;
        lane.waits_since = if is_waiting { lane.waits_since.or(Some(now)) } else { None };
        if let (Some(since), GapPolicy::SkipAfterMs(wait)) = (lane.waits_since, self.gap_policy) {
            self.timers.insert((since.saturating_add(wait), key.clone()));
        }
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

    /// Looks at what is due.
    pub(super) fn tick(&mut self, now: Millis) {
        while let Some((at, key)) = self.timers.first().cloned().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, key.clone()));
            let waited = self.lanes.get(&key).and_then(|lane| lane.waits_since);
            if let (Some(since), GapPolicy::SkipAfterMs(wait)) = (waited, self.gap_policy)
                && now >= since.saturating_add(wait)
            {
                self.skip_gap(&key);
            }
            self.wake(&key);
        }
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
        let Some(lane) = self.lanes.get_mut(key).filter(|lane| !lane.is_busy && !lane.record.is_paused) else {
            return Vec::new();
        };
        let mut run = Vec::new();
        let mut next_seq = lane.record.next_seq;
        if let Some((pending, not_before)) = lane.retry.take() {
            if not_before > now {
                self.timers.insert((not_before, key.clone()));
                lane.retry = Some((pending, not_before));
                return Vec::new();
            }
            // Alone, so that a failure does not keep others in flight.
            run.push(pending);
        } else {
            while run.len() < events_max
                && let Some(pending) = lane.take_next(&mut next_seq)
            {
                run.push(pending);
            }
        }
        if !run.is_empty() {
            lane.is_busy = true;
            lane.waits_since = None;
            let order = self.order;
            let ordered = |pending: &&Pending| order == Order::PerUser && pending.event.seq > 0 && !pending.is_replay;
            lane.out = run.iter().filter(ordered).map(|pending| pending.event.seq).collect();
            self.waiting = self.waiting.saturating_sub(run.len());
        }
        run
    }

    /// An event of a run that is out has ended: its lane's record moves on. It has failed for good, or not.
    pub(super) fn finish(&mut self, key: &LaneKey, pending: &Pending, has_failed: bool) {
        let seq = self.seq_of(pending);
        let Some(lane) = self.lanes.get_mut(key) else { return };
        if let Some(seq) = seq {
            // After a restart, one that was tried before may come first of all.
            lane.record.next_seq = lane.record.next_seq.max(seq + 1);
            if has_failed {
                lane.record.gaps.add(seq, seq);
            }
            self.changed.insert(key.clone());
        } else if pending.is_replay && !has_failed && pending.event.seq > 0 {
            lane.record.gaps.fill(pending.event.seq);
            lane.record.skipped.fill(pending.event.seq);
            self.changed.insert(key.clone());
        }
    }

    /// Puts events back that were not done: the first of them is tried again, not before the time, if it failed.
    pub(super) fn put_back(&mut self, key: &LaneKey, events: Vec<Pending>, retry_at: Option<Millis>) {
        let mut seqs: Vec<Option<u64>> = events.iter().map(|pending| self.seq_of(pending)).collect();
        let Some(lane) = self.lanes.get_mut(key) else { return };
        self.waiting += events.len();
        let mut events = events.into_iter();
        if let Some(at) = retry_at
            && let Some(first) = events.next()
        {
            lane.retry = Some((first, at));
            seqs.remove(0);
            self.timers.insert((at, key.clone()));
        }
        for (pending, seq) in events.zip(seqs).rev() {
            match seq {
                Some(seq) => {
                    lane.by_seq.insert(seq, pending);
                }
                None => lane.line.push_front(pending),
            }
        }
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

    /// Whether nothing of a lane is out.
    pub(super) fn is_home(&self, key: &LaneKey) -> bool {
        self.lanes.get(key).is_none_or(|lane| !lane.is_busy)
    }

    /// Forgets a lane, nothing of which is out. Returns what waits in it.
    pub(super) fn remove(&mut self, key: &LaneKey) -> Vec<Pending> {
        self.changed.remove(key);
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
            is_paused: lane.record.is_paused,
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

impl Lane {
    fn is_retried(&self, seq: u64) -> bool {
        self.retry.as_ref().is_some_and(|(pending, _)| pending.event.seq == seq && !pending.is_replay)
    }

    /// The lowest seq that has neither come nor ended.
    fn first_missing(&self) -> u64 {
        let mut seq = self.record.next_seq;
        while self.by_seq.contains_key(&seq) || self.out.contains(&seq) || self.is_retried(seq) {
            seq += 1;
        }
        seq
    }
}
