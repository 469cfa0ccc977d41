//! What producers, ClickHouse, the ledger and a reader have been told of frames and segments, and what must therefore
//! be found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use uuid::Uuid;

use super::*;

/// What producers know of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It was sent, and nothing was said.
    Unanswered,
    /// It was acknowledged, or found at a start: a repetition is a duplicate from then on.
    Known,
    /// It was refused, or not found at a start: a repetition is new, so it must never be found again.
    Absent,
}

/// What must be found.
#[derive(Default)]
pub(super) struct Oracle {
    pub(super) frames: BTreeMap<u32, Fate>,
    /// The frames of each segment that took no more of them when it was seen.
    pub(super) closed: HashMap<Uuid, Vec<u32>>,
    /// ClickHouse has them.
    pub(super) stored: HashSet<Uuid>,
    /// Of those, the ones that the ledger needs.
    pub(super) held: HashSet<Uuid>,
    pub(super) distrusted: HashSet<Uuid>,
    pub(super) parked: HashSet<Uuid>,
    /// Read on from there. Readers keep their positions durably.
    pub(super) position: LogPosition,
    pub(super) read: Vec<u32>,
}

/// Bytes behind a frame's number: now and then more than a sector or a page.
pub(super) const fn padding(number: u32) -> usize {
    match number % 11 {
        3 => 700,
        7 => 5_000,
        more => more as usize * 7,
    }
}

/// The lane of a frame.
pub(super) const fn lane_of(number: u32) -> Lane {
    if number % 4 == 3 { Lane::Scattered } else { Lane::Main }
}

pub(super) fn frame(number: u32) -> Frame {
    let bytes = padding(number);
    let mut buffer = Frame::buffer(bytes);
    buffer.extend_from_slice(&number.to_le_bytes());
    buffer.resize(buffer.len() + bytes, 7);
    let days = if lane_of(number) == Lane::Scattered { (0..100).collect() } else { Vec::new() };
    Frame::seal(buffer, 1).on_days(days)
}

/// The frames of each lane.
fn by_lane(frames: impl Iterator<Item = u32> + Clone) -> [Vec<u32>; 2] {
    Lane::WRITTEN.map(|lane| frames.clone().filter(|frame| lane_of(*frame) == lane).collect())
}

fn number(rows: &[u8]) -> u32 {
    u32::from_le_bytes(rows[..4].try_into().unwrap())
}

/// The frames of some rows.
pub(super) fn numbers_of(mut rows: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while !rows.is_empty() {
        let number = number(rows);
        rows = &rows[4 + padding(number)..];
        numbers.push(number);
    }
    numbers
}

pub(super) fn frames_of(segment: &Segment) -> Vec<u32> {
    let (mut frames, mut rows, mut numbers) = (SegmentFrames::open(segment).unwrap(), Vec::new(), Vec::new());
    while frames.next_frame(&mut rows).unwrap().is_some() {
        numbers.push(number(&rows));
        rows.clear();
    }
    numbers
}

impl Oracle {
    /// Judges what a start has found, which decides about all frames that are undecided.
    pub(super) fn judge(&mut self, log: &DiskLog) {
        let segments = log.segments();
        let (list, retained) = (segments.list(), segments.retained());
        assert!(list.iter().all(|segment| matches!(segment.state, SegmentState::Sealed | SegmentState::Parked)));
        let mut found = BTreeSet::new();
        let mut waiting = Vec::new();
        for segment in list.iter().chain(&retained) {
            let frames = frames_of(segment);
            let before = self.closed.entry(segment.id).or_insert_with(|| frames.clone());
            assert_eq!(*before, frames, "the segment {} has changed", segment.id);
            for frame in frames {
                assert!(found.insert(frame), "frame {frame} is there twice");
                assert_ne!(self.frames.get(&frame), Some(&Fate::Absent), "frame {frame} comes back");
                assert!(self.frames.contains_key(&frame), "frame {frame} was made up");
                if segment.state != SegmentState::Stored {
                    waiting.push(frame);
                }
            }
            // A stored segment is not inserted again, unless it comes back as one that is not.
            if self.distrusted.contains(&segment.id) && segment.state != SegmentState::Stored {
                assert!(log.is_token_distrusted(segment).unwrap(), "the token of {} is relied on again", segment.id);
            }
            if self.parked.contains(&segment.id) {
                assert_eq!(segment.state, SegmentState::Parked);
            }
        }
        let in_order = by_lane(waiting.into_iter()).iter().all(|frames| frames.is_sorted());
        assert!(in_order, "frames of a lane change their order");
        let is_there = |id: &Uuid| list.iter().chain(&retained).any(|segment| segment.id == *id);
        assert!(self.held.iter().all(is_there), "a segment has gone that the ledger needs");
        let stored: HashSet<u32> = self.stored.iter().flat_map(|id| &self.closed[id]).copied().collect();
        for (frame, fate) in &mut self.frames {
            match fate {
                Fate::Unanswered if found.contains(frame) => *fate = Fate::Known,
                Fate::Unanswered => *fate = Fate::Absent,
                Fate::Known => assert!(found.contains(frame) || stored.contains(frame), "frame {frame} is lost"),
                Fate::Absent => {}
            }
        }
    }

    /// At the end of a life: the reader has read what is known, once and in the order of its lane.
    pub(super) fn judge_reader(&self) {
        let known = self.frames.iter().filter(|(_, fate)| **fate == Fate::Known).map(|(frame, _)| *frame);
        assert_eq!(by_lane(self.read.iter().copied()), by_lane(known), "the reader has read something else");
    }
}
