//! The format of a segment file.
//!
//! ```text
//! header:  "TALLYSG2" · length u32 · crc32c u32 · body
//! body:    segment id (16 bytes) · opened at, microseconds u64 · rules u32 · blocks u64 · column names, comma-separated
//! frame:   length u32 · crc32c u32 · rows u32 · RowBinary rows        (any number of frames)
//! ```
//!
//! Numbers are little-endian. A length counts the bytes after the checksum's
//! field; a frame's checksum covers its number of rows and its rows. "TALLYSEG" is
//! the version before, without rules and blocks.

use std::io::{self, Read};
use std::time::SystemTime;

use opentelemetry::trace::SpanContext;
use uuid::Uuid;

use super::lanes::DayNumber;
use crate::log::dedup_window::DedupWindow;
use crate::trace;

const MAGIC: &[u8; 8] = b"TALLYSG2";
const MAGIC_WITHOUT_TERMS: &[u8; 8] = b"TALLYSEG";
/// Bytes of a header's body before the column names.
const BODY_FIXED_BYTES: usize = 16 + 8 + 4 + 8;
const BODY_FIXED_BYTES_WITHOUT_TERMS: usize = 16 + 8;
/// Longest column list that is believed.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Bytes of a frame before its rows.
pub(super) const FRAME_HEAD_BYTES: usize = 12;
/// Longest frame that is believed: above any batch that is accepted.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// What a segment file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The segment's id, and its insert's token.
    pub id: Uuid,
    /// When its first event arrived, in microseconds since 1970.
    pub opened_at_micros: u64,
    /// For how long its token can be relied on.
    pub dedup_window: DedupWindow,
    /// The columns of its rows, comma-separated.
    pub columns: String,
}

impl SegmentHeader {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BODY_FIXED_BYTES + self.columns.len());
        body.extend_from_slice(self.id.as_bytes());
        body.extend_from_slice(&self.opened_at_micros.to_le_bytes());
        body.extend_from_slice(&self.dedup_window.rules.to_le_bytes());
        body.extend_from_slice(&self.dedup_window.blocks.to_le_bytes());
        body.extend_from_slice(self.columns.as_bytes());
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&length(body.len()).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The header, and how many bytes it takes.
    pub(super) fn decode(reader: &mut impl Read) -> Result<(Self, u64), FrameError> {
        let mut head = [0; 16];
        read_all(reader, &mut head)?;
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let crc = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let fixed_bytes = match &head[..8] {
            magic if magic == MAGIC => BODY_FIXED_BYTES,
            magic if magic == MAGIC_WITHOUT_TERMS => BODY_FIXED_BYTES_WITHOUT_TERMS,
            _ => return Err(FrameError::Damaged),
        };
        if !(fixed_bytes..=BODY_BYTES_MAX).contains(&length) {
            return Err(FrameError::Damaged);
        }
        let mut body = vec![0; length];
        read_all(reader, &mut body)?;
        if crc32c::crc32c(&body) != crc {
            return Err(FrameError::Damaged);
        }
        let (fixed, columns) = body.split_at(fixed_bytes);
        let dedup_window = match &fixed[24..] {
            [] => DedupWindow::default(),
            dedup_window => DedupWindow { rules: u32_at(dedup_window, 0)?, blocks: u64_at(dedup_window, 4)? },
        };
        let header = Self {
            id: Uuid::from_slice(&fixed[..16]).map_err(|_| FrameError::Damaged)?,
            opened_at_micros: u64_at(fixed, 16)?,
            dedup_window,
            columns: String::from_utf8(columns.to_vec()).map_err(|_| FrameError::Damaged)?,
        };
        Ok((header, (head.len() + length) as u64))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, FrameError> {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(FrameError::Damaged)
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, FrameError> {
    let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes).ok_or(FrameError::Damaged)
}

/// Rows of one batch, on their way into a segment: the bytes of one frame.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    rows: u32,
    /// The days of its events, each once.
    days: Vec<DayNumber>,
    /// The call that the rows came with, if it is sampled.
    call: Option<Box<FrameCall>>,
}

/// A sampled call, and when its frame was put in line.
#[derive(Debug)]
pub(super) struct FrameCall {
    pub(super) span: SpanContext,
    pub(super) queued_at: SystemTime,
}

impl Frame {
    /// A buffer to encode rows into, behind room for the frame's head.
    pub fn buffer(capacity: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(FRAME_HEAD_BYTES + capacity);
        buffer.resize(FRAME_HEAD_BYTES, 0);
        buffer
    }

    /// Closes a buffer made by [`Frame::buffer`] that holds so many rows.
    pub fn seal(mut buffer: Vec<u8>, rows: u32) -> Self {
        buffer[8..12].copy_from_slice(&rows.to_le_bytes());
        let crc = crc32c::crc32c(&buffer[8..]);
        buffer[4..8].copy_from_slice(&crc.to_le_bytes());
        let length = length(buffer.len() - 8);
        buffer[..4].copy_from_slice(&length.to_le_bytes());
        Self { bytes: buffer, rows, days: Vec::new(), call: None }
    }

    /// Says on which days its events occurred, each once, which decides on its lane. Without, it is of the main lane.
    #[must_use]
    pub fn on_days(self, days: Vec<DayNumber>) -> Self {
        Self { days, ..self }
    }

    /// The days of its events, as far as they were said.
    pub(super) fn days(&self) -> &[DayNumber] {
        &self.days
    }

    /// It comes with the current call.
    pub(super) fn note_call(&mut self) {
        self.call = trace::current().map(|span| Box::new(FrameCall { span, queued_at: SystemTime::now() }));
    }

    /// The call it came with, if that is sampled.
    pub(super) const fn take_call(&mut self) -> Option<Box<FrameCall>> {
        self.call.take()
    }

    /// The frame's bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many rows it holds.
    pub const fn rows(&self) -> u32 {
        self.rows
    }
}

#[allow(clippy::cast_possible_truncation, reason = "batches and column lists are far below 4 GiB")]
const fn length(bytes: usize) -> u32 {
    bytes as u32
}

/// Why a segment cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes end within a header or a frame: a write that was cut short.
    #[error("the file ends within a frame")]
    Torn,
    /// The bytes are not what was written.
    #[error("the file is damaged")]
    Damaged,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
}

fn read_all(reader: &mut impl Read, buffer: &mut [u8]) -> Result<(), FrameError> {
    reader.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => FrameError::Torn,
        _ => FrameError::Io(error),
    })
}

/// Reads a segment frame by frame, checking each.
pub(super) struct SegmentReader<R> {
    header: SegmentHeader,
    reader: R,
    /// Bytes of the header and of all frames read: where the good part ends.
    good_bytes: u64,
}

impl<R: Read> SegmentReader<R> {
    /// Reads the header.
    pub(super) fn new(mut reader: R) -> Result<Self, FrameError> {
        let (header, good_bytes) = SegmentHeader::decode(&mut reader)?;
        Ok(Self { header, reader, good_bytes })
    }

    /// The header.
    pub(super) const fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Bytes up to the end of the last good frame.
    pub(super) const fn good_bytes(&self) -> u64 {
        self.good_bytes
    }

    /// Appends the next frame's rows to the buffer and returns how many there
    /// are; none at the end of the file.
    pub(super) fn next_frame(&mut self, rows: &mut Vec<u8>) -> Result<Option<u32>, FrameError> {
        let read = read_frame(&mut self.reader, rows)?;
        self.good_bytes += read.map_or(0, |(_, bytes)| bytes);
        Ok(read.map(|(count, _)| count))
    }
}

/// Appends a frame's rows to the buffer, and returns how many there are and how many bytes the frame takes;
/// none at the end.
pub(super) fn read_frame(reader: &mut impl Read, rows: &mut Vec<u8>) -> Result<Option<(u32, u64)>, FrameError> {
    let mut length = [0; 4];
    match read_all(reader, &mut length[..1]) {
        Err(FrameError::Torn) => return Ok(None),
        begun => begun?,
    }
    read_all(reader, &mut length[1..])?;
    let length = u32::from_le_bytes(length) as usize;
    if !(4..=FRAME_BYTES_MAX).contains(&length) {
        return Err(FrameError::Damaged);
    }
    let mut head = [0; 8];
    read_all(reader, &mut head)?;
    let (crc, row_count) = head.split_at(4);
    let start = rows.len();
    let read = read_rows(reader, rows, length - 4);
    let check = crc32c::crc32c_append(crc32c::crc32c(row_count), &rows[start..]);
    if read.is_ok() && check.to_le_bytes() == crc {
        let count = u32::from_le_bytes([row_count[0], row_count[1], row_count[2], row_count[3]]);
        return Ok(Some((count, (8 + length) as u64)));
    }
    rows.truncate(start);
    read.and(Err(FrameError::Damaged))
}

/// Reads through `take`, so that a damaged length allocates no more than
/// the file holds.
fn read_rows(reader: &mut impl Read, rows: &mut Vec<u8>, bytes: usize) -> Result<(), FrameError> {
    let read = reader.by_ref().take(bytes as u64).read_to_end(rows)?;
    if read == bytes { Ok(()) } else { Err(FrameError::Torn) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn segment(frames: &[Vec<u8>]) -> Vec<u8> {
        let dedup_window = DedupWindow { rules: 1, blocks: 9 };
        let header = SegmentHeader { id: Uuid::now_v7(), opened_at_micros: 7, dedup_window, columns: "a,b".to_owned() };
        let mut bytes = header.encode();
        for frame in frames {
            let mut buffer = Frame::buffer(0);
            buffer.extend_from_slice(frame);
            bytes.extend_from_slice(Frame::seal(buffer, 1).bytes());
        }
        bytes
    }

    /// The frames that can be read, and whether the end was reached.
    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, bool, u64) {
        let Ok(mut reader) = SegmentReader::new(bytes) else { return (Vec::new(), false, 0) };
        let mut frames = Vec::new();
        loop {
            let mut frame = Vec::new();
            match reader.next_frame(&mut frame) {
                Ok(Some(_)) => frames.push(frame),
                Ok(None) => return (frames, true, reader.good_bytes()),
                Err(_) => return (frames, false, reader.good_bytes()),
            }
        }
    }

    #[test]
    fn a_header_of_the_version_before_is_read() {
        let id = Uuid::now_v7();
        let mut body = id.as_bytes().to_vec();
        body.extend_from_slice(&7_u64.to_le_bytes());
        body.extend_from_slice(b"a,b");
        let mut bytes = MAGIC_WITHOUT_TERMS.to_vec();
        bytes.extend_from_slice(&length(body.len()).to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let reader = SegmentReader::new(&*bytes).unwrap();
        let dedup_window = DedupWindow::default();
        let header = SegmentHeader { id, opened_at_micros: 7, dedup_window, columns: "a,b".to_owned() };
        assert_eq!((reader.header(), reader.good_bytes()), (&header, bytes.len() as u64));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_cut_or_flipped_file_gives_a_prefix_of_its_frames(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let whole = segment(&frames);
            let length = whole.len() as u64;
            prop_assert_eq!(read(&whole), (frames.clone(), true, length));

            let torn = &whole[..cut.index(whole.len())];
            let (got, _, good) = read(torn);
            prop_assert!(frames.starts_with(&got));
            prop_assert!(good <= torn.len() as u64);

            let mut flipped = whole.clone();
            flipped[flip.index(whole.len())] ^= 1 << bit;
            let (got, complete, _) = read(&flipped);
            prop_assert!(frames.starts_with(&got) && !complete, "a flipped bit must be seen");
        }

        #[test]
        fn bytes_of_a_stranger_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut named = MAGIC.to_vec();
            named.extend_from_slice(&bytes);
            let _ = (read(&bytes), read(&named));
        }
    }
}
