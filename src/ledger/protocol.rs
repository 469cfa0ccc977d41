//! How ids move from the log through memory into the ledger, explored exhaustively: two segments, two ids, every
//! interleaving of the steps of sealing, noting, writing, syncing, naming, releasing, inserting, merging, damage and
//! repair, with a crash before each.
//!
//! This is the protocol, not its code: each step is what becomes durable, or is known in memory, at one moment. The
//! code's own steps are run on a simulated disk in `model` and in the index's model.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

const SEGMENTS: usize = 2;
const IDS: u8 = 2;
/// Most runs at a time.
const RUNS_MAX: usize = 3;

/// Ids, one bit each.
type Ids = u8;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum File {
    #[default]
    NotYet,
    Open,
    Closed,
    Gone,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Segment {
    file: File,
    /// What was written, and is durable.
    written: Ids,
    /// What of it can still be read.
    good: Ids,
    /// ClickHouse has what was good when it was inserted.
    is_inserted: bool,
    /// The file says so.
    is_stored: bool,
    is_noted: bool,
    /// In memory: written and settled.
    settled: Ids,
    /// In memory: it is known what is good.
    is_salvaged: bool,
    /// In memory: what is lost of it has been forgotten since.
    is_repaired: bool,
    /// In memory: the ledger needs its file.
    is_held: bool,
}

/// Ids on their way into a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Sealed {
    ids: Ids,
    segments: Vec<usize>,
    step: WriteStep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriteStep {
    Sealed,
    RunSynced,
    Named,
    OutOfMemory,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct State {
    segments: [Segment; SEGMENTS],
    /// Durable: what the manifest names.
    runs: Vec<Ids>,
    covered: Vec<usize>,
    /// What ClickHouse has, and how often it was counted.
    stored: [u8; IDS as usize],
    /// Memory.
    pending: Ids,
    /// Of each pending id, the segment that its batch is durable in.
    synced_in: [Option<usize>; IDS as usize],
    recent: Ids,
    sealed: Option<Sealed>,
    doubted: Ids,
    /// Lost events that are being dealt with: of this segment, these ids, taken out of the runs yet or not.
    repair: Option<(usize, Ids, bool)>,
    /// Damages left: one is enough for every order.
    damages_left: u8,
    /// Lost with the damage, which has not been dealt with.
    is_unnoticed: Ids,
    /// What producers were told is there, but for what was lost with the damage.
    acknowledged: Ids,
}

/// What is told of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    New,
    Known,
    Undecided,
    Pending,
}

impl State {
    fn begin() -> Self {
        Self { damages_left: 1, ..Self::default() }
    }

    fn ask(&self, id: Ids) -> Told {
        let in_memory = self.recent
            | self.sealed.as_ref().map_or(
                0,
                |sealed| {
                    if sealed.step == WriteStep::OutOfMemory { 0 } else { sealed.ids }
                },
            );
        if in_memory & id != 0 {
            Told::Known
        } else if self.pending & id != 0 {
            Told::Pending
        } else if self.runs.iter().any(|run| run & id != 0) {
            if self.doubted & id != 0 { Told::Undecided } else { Told::Known }
        } else {
            Told::New
        }
    }

    /// Whether an event of this id is, or will be, in ClickHouse.
    fn is_there(&self, id: Ids) -> bool {
        let in_log = self
            .segments
            .iter()
            .any(|segment| matches!(segment.file, File::Open | File::Closed) && segment.good & id != 0);
        in_log || self.stored[id.trailing_zeros() as usize] > 0
    }

    /// What must always hold.
    fn check(&self) -> Result<(), String> {
        for id in (0..IDS).map(|n| 1 << n) {
            let told = self.ask(id);
            let is_there = self.is_there(id);
            if told == Told::New && is_there {
                return Err(format!("id {id} would count twice"));
            }
            if self.acknowledged & id != 0 && !is_there {
                return Err(format!("id {id} was acknowledged, and nothing has its event"));
            }
            if told == Told::Known && !is_there && self.is_unnoticed & id == 0 {
                return Err(format!("id {id} is called known, and nothing has its event"));
            }
        }
        if self.stored.iter().any(|count| *count > 1) {
            return Err("an id was counted twice".to_owned());
        }
        Ok(())
    }

    /// Every state that one step leads to.
    fn next(&self) -> Vec<(String, Self)> {
        let mut next = Vec::new();
        let mut add = |name: String, state: Self| next.push((name, state));
        self.of_batches(&mut add);
        for at in 0..SEGMENTS {
            self.of_segment(at, &mut add);
        }
        self.of_ledger(&mut add);
        self.of_repair(&mut add);
        add("crash".to_owned(), self.crashed());
        next
    }

    fn of_batches(&self, add: &mut impl FnMut(String, Self)) {
        let open = self.segments.iter().position(|segment| segment.file == File::Open);
        for id in (0..IDS).map(|n| 1 << n) {
            if self.ask(id) == Told::New {
                add(format!("claim {id}"), Self { pending: self.pending | id, ..self.clone() });
            }
            if self.pending & id == 0 {
                continue;
            }
            let number = id.trailing_zeros() as usize;
            match (self.synced_in[number], open) {
                (Some(at), _) => {
                    let mut state = self.clone();
                    (state.pending, state.synced_in[number]) = (state.pending & !id, None);
                    state.segments[at].settled |= id;
                    state.recent |= id;
                    state.acknowledged |= id & state.segments[at].good;
                    add(format!("settle {id} of {at}"), state);
                }
                (None, open) => {
                    add(format!("release {id}"), Self { pending: self.pending & !id, ..self.clone() });
                    let Some(at) = open.filter(|at| self.segments[*at].written & id == 0) else { continue };
                    let mut state = self.clone();
                    state.segments[at].written |= id;
                    state.segments[at].good |= id;
                    state.synced_in[number] = Some(at);
                    add(format!("sync {id} in {at}"), state);
                }
            }
        }
    }

    fn of_segment(&self, at: usize, add: &mut impl FnMut(String, Self)) {
        let segment = &self.segments[at];
        let mut change = |name: &str, change: &dyn Fn(&mut Self)| {
            let mut state = self.clone();
            change(&mut state);
            add(format!("{name} {at}"), state);
        };
        let none_is_open = self.segments.iter().all(|segment| segment.file != File::Open);
        if segment.file == File::NotYet && none_is_open && (at == 0 || self.segments[at - 1].file != File::NotYet) {
            change("open", &|state| {
                state.segments[at] = Segment { file: File::Open, is_held: true, ..Segment::default() };
            });
        }
        if segment.file == File::Open && segment.written != 0 {
            change("close", &|state| state.segments[at].file = File::Closed);
        }
        let waits = segment.file == File::Closed && !segment.is_stored;
        let is_whole = segment.good == segment.written;
        // The forwarder inserts what it reads, again and again; a token counts once.
        if waits && segment.good != 0 && (is_whole || segment.is_repaired) {
            change("insert", &|state| {
                for id in (0..IDS).filter(|n| state.segments[at].good & 1 << n != 0) {
                    let elsewhere = is_whole && !segment.is_inserted;
                    let is_missing = state.stored[usize::from(id)] == 0;
                    state.stored[usize::from(id)] += u8::from(elsewhere || is_missing);
                }
                state.segments[at].is_inserted = true;
            });
        }
        if waits && segment.is_inserted && (is_whole || segment.is_repaired) {
            change("store", &|state| {
                let segment = &mut state.segments[at];
                segment.is_stored = true;
                if !segment.is_held {
                    segment.file = File::Gone;
                }
            });
        }
        if waits && is_whole && !segment.is_noted {
            change("note", &|state| state.segments[at].is_noted = true);
        }
        if segment.is_stored && segment.is_noted && self.sealed.is_none() {
            change("forget the note of", &|state| state.segments[at].is_noted = false);
        }
        // A bit flips in the file that alone has the events.
        if waits && !segment.is_inserted && is_whole && self.damages_left > 0 {
            for lost in (0..IDS).map(|n| 1 << n).filter(|id| segment.good & id != 0) {
                change(&format!("damage {lost} of"), &|state| {
                    state.segments[at].good &= !lost;
                    state.damages_left = 0;
                    state.is_unnoticed |= lost;
                    state.acknowledged &= !lost;
                });
            }
        }
        if waits && !is_whole && !segment.is_salvaged {
            change("salvage", &|state| {
                state.segments[at].is_salvaged = true;
                state.doubt(at);
            });
        }
    }

    /// What a note says was in a segment, and is not good any more, is doubted.
    fn doubt(&mut self, at: usize) {
        if self.segments[at].is_noted {
            self.doubted |= self.segments[at].written & !self.segments[at].good;
        }
    }

    /// Ids that are in another segment or in ClickHouse.
    fn others(&self, at: usize) -> Ids {
        let in_log = self
            .segments
            .iter()
            .enumerate()
            .filter(|(other, segment)| *other != at && matches!(segment.file, File::Open | File::Closed));
        let in_log = in_log.fold(0, |ids, (_, segment)| ids | segment.good);
        (0..IDS).filter(|n| self.stored[usize::from(*n)] > 0).fold(in_log, |ids, n| ids | 1 << n)
    }

    fn of_ledger(&self, add: &mut impl FnMut(String, Self)) {
        match &self.sealed {
            None if self.repair.is_none() => self.seal(add),
            None => {}
            Some(sealed) => {
                let step = match sealed.step {
                    WriteStep::Sealed => Some(WriteStep::RunSynced),
                    WriteStep::RunSynced if self.runs.len() < RUNS_MAX => Some(WriteStep::Named),
                    WriteStep::RunSynced => None,
                    WriteStep::Named => Some(WriteStep::OutOfMemory),
                    WriteStep::OutOfMemory => None,
                };
                let mut state = self.clone();
                if let Some(step) = step {
                    if step == WriteStep::Named {
                        state.runs.insert(0, sealed.ids);
                        let in_log = |at: &usize| self.segments[*at].file != File::Gone;
                        state.covered.retain(in_log);
                        state.covered.extend(sealed.segments.iter().filter(|at| !self.segments[**at].is_salvaged));
                        state.covered.sort_unstable();
                        state.covered.dedup();
                    }
                    state.sealed = Some(Sealed { step, ..sealed.clone() });
                    add(format!("{step:?}"), state);
                } else if sealed.step == WriteStep::OutOfMemory {
                    state.sealed = None;
                    for at in &sealed.segments {
                        let segment = &mut state.segments[*at];
                        segment.is_held = false;
                        if segment.is_stored {
                            segment.file = File::Gone;
                        }
                    }
                    add("release".to_owned(), state);
                }
            }
        }
        if self.runs.len() > 1 {
            let runs = vec![self.runs.iter().fold(0, |ids, run| ids | run)];
            add("merge".to_owned(), Self { runs, ..self.clone() });
        }
    }

    fn seal(&self, add: &mut impl FnMut(String, Self)) {
        let may_go = |segment: &Segment| {
            segment.file == File::Closed
                && segment.is_held
                && segment.settled == segment.written
                && (segment.is_stored || segment.is_noted && !segment.is_salvaged)
        };
        let segments: Vec<usize> = (0..SEGMENTS).filter(|at| may_go(&self.segments[*at])).collect();
        if segments.is_empty() {
            return;
        }
        let ids = segments.iter().fold(0, |ids, at| ids | self.segments[*at].settled) & self.recent;
        let mut state = self.clone();
        // Ids that a segment which stays has as well, after theirs were lost, stay recent.
        state.recent &= !ids;
        state.sealed = Some(Sealed { ids, segments, step: WriteStep::Sealed });
        add("seal".to_owned(), state);
    }

    fn of_repair(&self, add: &mut impl FnMut(String, Self)) {
        match &self.repair {
            None if self.sealed.is_none() => {
                for at in 0..SEGMENTS {
                    let segment = &self.segments[at];
                    let lost = segment.written & !segment.good & !self.others(at);
                    // Batches that are durable are settled in a moment: that is waited for.
                    let is_settled = !self.synced_in.contains(&Some(at));
                    let is_due = segment.file == File::Closed && segment.is_salvaged && !segment.is_repaired;
                    let is_due = is_due && is_settled;
                    if is_due {
                        let mut state = self.clone();
                        state.repair = Some((at, lost, false));
                        add(format!("look for what is lost of {at}"), state);
                    }
                }
            }
            None => {}
            Some((at, lost, false)) => {
                let mut state = self.clone();
                // Only those with the segment's tag.
                state.recent &= !(lost & self.segments[*at].settled);
                if self.segments[*at].is_noted {
                    state.covered.retain(|covered| covered != at);
                    state.runs.iter_mut().for_each(|run| *run &= !lost);
                }
                state.repair = Some((*at, *lost, true));
                add(format!("forget what is lost of {at}"), state);
            }
            Some((at, lost, true)) => {
                let mut state = self.clone();
                state.doubted &= !lost;
                state.is_unnoticed &= !lost;
                state.segments[*at].is_repaired = true;
                state.repair = None;
                add(format!("{at} is repaired"), state);
            }
        }
    }

    /// Memory is gone, and the next start has looked at the log and the ledger.
    fn crashed(&self) -> Self {
        let mut state = Self {
            segments: self.segments.clone(),
            runs: self.runs.clone(),
            covered: self.covered.clone(),
            stored: self.stored,
            damages_left: self.damages_left,
            acknowledged: self.acknowledged,
            ..Self::default()
        };
        for at in 0..SEGMENTS {
            let is_covered = state.covered.contains(&at);
            let segment = &mut state.segments[at];
            if segment.file == File::Open {
                segment.file = if segment.written == 0 { File::Gone } else { File::Closed };
            }
            if segment.file != File::Closed {
                continue;
            }
            if is_covered && segment.is_stored {
                segment.file = File::Gone;
                continue;
            }
            segment.is_salvaged = segment.good != segment.written && !segment.is_stored;
            (segment.is_held, segment.settled, segment.is_repaired) = (!is_covered, 0, false);
            if !is_covered {
                segment.settled = segment.good;
                state.recent |= segment.good;
                // Of a damaged one, only what is good was ever in it, as far as anybody can tell.
                if segment.is_salvaged && !segment.is_noted {
                    segment.written = segment.good;
                }
            }
            if segment.good == 0 && segment.is_salvaged && !segment.is_noted {
                segment.file = File::Gone; // Nothing in it can be stored.
            }
            if state.segments[at].is_salvaged {
                state.doubt(at);
            }
        }
        state
    }
}

/// Visits every state that can be reached, and returns how many there are.
fn explore() -> usize {
    let begin = State::begin();
    let mut seen: HashSet<State> = HashSet::from([begin.clone()]);
    let mut paths: Vec<(usize, String, State)> = vec![(0, String::new(), begin)];
    let mut queue = VecDeque::from([0]);
    while let Some(at) = queue.pop_front() {
        let state = paths[at].2.clone();
        for (step, next) in state.next() {
            if let Err(error) = next.check() {
                let mut trace = vec![step];
                let mut back = at;
                while back != 0 {
                    trace.push(paths[back].1.clone());
                    back = paths[back].0;
                }
                trace.reverse();
                panic!("{error} after: {}\n{next:#?}", trace.join(" · "));
            }
            if seen.insert(next.clone()) {
                paths.push((at, step, next));
                queue.push_back(paths.len() - 1);
            }
        }
    }
    seen.len()
}

#[test]
fn no_interleaving_of_two_segments_and_no_crash_counts_twice_or_forgets() {
    let states = explore();
    assert!(states > 10_000, "only {states} states were reached");
    println!("{states} states");
}
