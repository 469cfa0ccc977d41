//! The good frames of a damaged segment.
//!
//! A frame that fails its checksum is left out, and the search goes on behind it: at the place its length
//! names, or else at the next place where a whole frame begins. Texts in rows hold no control characters, so
//! no event can hold bytes that would be taken for a frame of a segment below 150 MB.

use std::io::{self, Read as _, SeekFrom};
use std::ops::Range;

use uuid::Uuid;

use super::frame::{FRAME_HEAD_BYTES, FrameError, SegmentHeader, read_frame};
use super::port::{SegmentBytes, SegmentSource};
use crate::event_row::{self, Rows};

/// Checksums are made over at most so many times the file's bytes while the next frame is looked for.
const CHECKED_TIMES_MAX: usize = 64;

/// What is good in a damaged segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvage {
    /// Where the good frames are, in order.
    pub frames: Vec<Range<u64>>,
    /// Events in them.
    pub rows: u64,
    /// Bytes of the file that are in no good frame.
    pub lost_bytes: u64,
    /// The columns of the rows, comma-separated.
    pub columns: String,
    /// When the segment was opened, in microseconds since 1970.
    pub opened_at_micros: u64,
}

impl Salvage {
    /// Of a file of so many bytes in which nothing is good.
    pub(super) fn nothing(lost_bytes: u64) -> Self {
        Self { frames: Vec::new(), rows: 0, lost_bytes, columns: event_row::COLUMNS.to_owned(), opened_at_micros: 0 }
    }

    /// Searches a segment; none when nothing in it can be stored. Without a good header the rows must
    /// be of this version's columns. The segment is read into memory.
    pub(super) fn of(source: &dyn SegmentSource, id: Uuid) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        source.open()?.read_to_end(&mut bytes)?;
        Ok(Self::of_bytes(&bytes, id))
    }

    /// The same, of the segment's bytes.
    pub(super) fn of_bytes(bytes: &[u8], id: Uuid) -> Option<Self> {
        let header = SegmentHeader::decode(&mut &*bytes).ok();
        let start = header.as_ref().and_then(|(_, bytes)| usize::try_from(*bytes).ok()).unwrap_or_default();
        let frames = Search { bytes, checks_left: bytes.len().saturating_mul(CHECKED_TIMES_MAX) }.frames(start);
        let good: usize = frames.iter().map(ExactSizeIterator::len).sum();
        let rows = frames.iter().map(|frame| u64::from(row_count(&bytes[frame.clone()]))).sum();
        let (columns, opened_at_micros) = match header {
            Some((header, _)) if header.id == id => (header.columns, header.opened_at_micros),
            Some(_) => return None, // A copy of another segment.
            None if frames.iter().all(|frame| are_rows(&bytes[frame.clone()])) => {
                (event_row::COLUMNS.to_owned(), micros_of(id))
            }
            None => return None,
        };
        let lost_bytes = (bytes.len() - start - good) as u64;
        let frames: Vec<_> = frames.into_iter().map(|frame| frame.start as u64..frame.end as u64).collect();
        (!frames.is_empty()).then_some(Self { frames, rows, lost_bytes, columns, opened_at_micros })
    }
}

/// The number of rows that a frame's head names.
fn row_count(frame: &[u8]) -> u32 {
    let count = frame.get(8..FRAME_HEAD_BYTES).and_then(|count| count.try_into().ok());
    count.map_or(0, u32::from_le_bytes)
}

/// Whether a frame holds whole rows of this version's columns, as many as it says.
fn are_rows(frame: &[u8]) -> bool {
    let rows: Result<Vec<_>, _> = Rows::whole(&frame[FRAME_HEAD_BYTES..]).collect();
    rows.is_ok_and(|rows| rows.len() as u64 == u64::from(row_count(frame)))
}

/// When the segment was made: its id is a UUIDv7.
fn micros_of(id: Uuid) -> u64 {
    let seconds = id.get_timestamp().map(|time| time.to_unix());
    seconds.map_or(0, |(seconds, nanos)| seconds.saturating_mul(1_000_000) + u64::from(nanos) / 1_000)
}

struct Search<'a> {
    bytes: &'a [u8],
    /// Bytes that may still be checked while frames are searched for.
    checks_left: usize,
}

impl Search<'_> {
    /// All good frames from here on.
    fn frames(mut self, start: usize) -> Vec<Range<usize>> {
        let (mut frames, mut at) = (Vec::new(), start);
        while at < self.bytes.len() {
            let frame = self.frame_at(at).or_else(|| self.next_frame(at));
            let Some(frame) = frame else { break };
            at = frame.end;
            frames.push(frame);
        }
        frames
    }

    /// The first good frame behind a place where none begins.
    fn next_frame(&mut self, at: usize) -> Option<Range<usize>> {
        // Often only rows are damaged and the length is right. A wrong length may name the place where a later
        // frame begins, so what lies between is searched all the same.
        let named = self.end_of(at).and_then(|end| self.frame_at(end));
        let end = named.as_ref().map_or(self.bytes.len(), |frame| frame.start);
        self.search(at + 1..end).or(named)
    }

    /// The first good frame within these bytes, as far as checks are left.
    fn search(&mut self, within: Range<usize>) -> Option<Range<usize>> {
        for at in within.start..within.end.saturating_sub(FRAME_HEAD_BYTES) {
            let Some(end) = self.end_of(at).filter(|end| *end <= within.end) else { continue };
            self.checks_left = self.checks_left.checked_sub(end - at)?;
            if let Some(frame) = self.frame_at(at) {
                return Some(frame);
            }
        }
        None
    }

    /// Where the frame that begins here ends, by its length.
    fn end_of(&self, at: usize) -> Option<usize> {
        let length = self.bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)?;
        let end = at.checked_add(8)?.checked_add(usize::try_from(length).ok()?)?;
        (length >= 4 && end <= self.bytes.len()).then_some(end)
    }

    /// The good frame that begins here, if one does.
    fn frame_at(&self, at: usize) -> Option<Range<usize>> {
        let end = self.end_of(at)?;
        let crc = u32::from_le_bytes(self.bytes[at + 4..at + 8].try_into().ok()?);
        (crc32c::crc32c(&self.bytes[at + 8..end]) == crc).then_some(at..end)
    }
}

/// Reads good frames again, checking each once more.
pub(super) struct SalvagedFrames {
    bytes: Box<dyn SegmentBytes>,
    frames: std::vec::IntoIter<Range<u64>>,
}

impl SalvagedFrames {
    pub(super) fn open(source: &dyn SegmentSource, salvage: &Salvage) -> Result<Self, FrameError> {
        Ok(Self { bytes: source.open()?, frames: salvage.frames.clone().into_iter() })
    }

    /// As [`super::SegmentReader::next_frame`].
    pub(super) fn next_frame(&mut self, rows: &mut Vec<u8>) -> Result<Option<u32>, FrameError> {
        let Some(frame) = self.frames.next() else { return Ok(None) };
        self.bytes.seek(SeekFrom::Start(frame.start))?;
        let read = read_frame(&mut (&mut self.bytes).take(frame.end - frame.start), rows)?;
        Ok(Some(read.ok_or(FrameError::Torn)?.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::fuzzing::written;

    const ID: Uuid = Uuid::from_u128(0x0199_c2f0_7d6c_7a51_9d2b_6a4f_3c1e_8b77);

    fn rows(bytes: &[u8], salvage: &Salvage) -> Vec<Vec<u8>> {
        let at = |place: u64| usize::try_from(place).unwrap();
        let frames = salvage.frames.iter();
        frames.map(|frame| bytes[at(frame.start) + FRAME_HEAD_BYTES..at(frame.end)].to_vec()).collect()
    }

    /// Where each frame begins.
    fn starts(frames: &[Vec<u8>]) -> Vec<usize> {
        let header = written(ID, &[]).len();
        let ends = frames.iter().scan(header, |at, frame| {
            let start = *at;
            *at += FRAME_HEAD_BYTES + frame.len();
            Some(start)
        });
        ends.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn one_damaged_frame_costs_that_frame_and_no_other(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 2..8),
            damaged in any::<prop::sample::Index>(),
            place in any::<prop::sample::Index>(),
            by in 1..=u8::MAX,
        ) {
            let all: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let mut bytes = written(ID, &all);
            let damaged = damaged.index(frames.len());
            let start = starts(&frames)[damaged];
            bytes[start + place.index(FRAME_HEAD_BYTES + frames[damaged].len())] ^= by;
            let salvage = Salvage::of_bytes(&bytes, ID).unwrap();
            let mut expected = frames.clone();
            let lost = expected.remove(damaged);
            prop_assert_eq!(rows(&bytes, &salvage), expected);
            prop_assert_eq!(salvage.rows, frames.len() as u64 - 1);
            prop_assert_eq!(salvage.lost_bytes, (FRAME_HEAD_BYTES + lost.len()) as u64);
        }

        #[test]
        fn bytes_of_a_stranger_end_soon_and_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = Salvage::of_bytes(&bytes, ID);
        }
    }

    #[test]
    fn a_damaged_length_that_names_a_later_frame_hides_none_between() {
        let frames = [b"first".as_slice(), b"second", b"third"];
        let mut bytes = written(ID, &frames);
        let start = written(ID, &[]).len();
        let both = u32::try_from(4 + frames[0].len() + FRAME_HEAD_BYTES + frames[1].len()).unwrap();
        bytes[start..start + 4].copy_from_slice(&both.to_le_bytes());
        let salvage = Salvage::of_bytes(&bytes, ID).unwrap();
        assert_eq!(rows(&bytes, &salvage), frames[1..]);
    }

    #[test]
    fn without_a_header_rows_of_other_columns_are_not_taken() {
        let mut bytes = written(ID, &[b"rows of somebody else"]);
        assert!(Salvage::of_bytes(&bytes, ID).is_some());
        assert_eq!(Salvage::of_bytes(&bytes, Uuid::from_u128(1)), None, "a copy of another segment");
        bytes[20] ^= 1;
        assert_eq!(Salvage::of_bytes(&bytes, ID), None);
    }
}
