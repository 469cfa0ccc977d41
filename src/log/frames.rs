//! The frames of a segment, one after the other: of a whole one, or what is good of a damaged one.

use std::io::BufReader;

use super::frame::{FrameError, SegmentReader};
use super::port::{SegmentBytes, SegmentSource};
use super::salvage::{Salvage, SalvagedFrames};
use super::segment::Segment;

const READ_BUFFER_BYTES: usize = 256 << 10;

/// Reads the frames of a segment in order. Of a damaged segment, it reads the intact frames only.
pub struct SegmentFrames {
    columns: String,
    source: Source,
}

enum Source {
    Whole(SegmentReader<BufReader<Box<dyn SegmentBytes>>>),
    Salvaged(SalvagedFrames),
}

impl SegmentFrames {
    /// Opens a segment.
    ///
    /// # Errors
    /// `Damaged` also when the file is a copy of another segment.
    pub fn open(segment: &Segment) -> Result<Self, FrameError> {
        if let Some(salvage) = &segment.salvage {
            return Self::of_salvage(&*segment.source, salvage);
        }
        let reader = open_whole(&*segment.source)?;
        if reader.header().id != segment.id {
            return Err(FrameError::Damaged);
        }
        Ok(Self { columns: reader.header().columns.clone(), source: Source::Whole(reader) })
    }

    /// The good frames of what is damaged.
    pub(super) fn of_salvage(bytes: &dyn SegmentSource, salvage: &Salvage) -> Result<Self, FrameError> {
        let source = Source::Salvaged(SalvagedFrames::open(bytes, salvage)?);
        Ok(Self { columns: salvage.columns.clone(), source })
    }

    /// The columns of the rows, comma-separated.
    pub fn columns(&self) -> &str {
        &self.columns
    }

    /// Appends the next frame's rows to the buffer and returns how many there
    /// are; none at the end.
    ///
    /// # Errors
    /// When the file is damaged further than is known, or cannot be read.
    pub fn next_frame(&mut self, rows: &mut Vec<u8>) -> Result<Option<u32>, FrameError> {
        match &mut self.source {
            Source::Whole(reader) => reader.next_frame(rows),
            Source::Salvaged(frames) => frames.next_frame(rows),
        }
    }
}

/// Opens what may be a whole segment.
pub(super) fn open_whole(
    source: &dyn SegmentSource,
) -> Result<SegmentReader<BufReader<Box<dyn SegmentBytes>>>, FrameError> {
    SegmentReader::new(BufReader::with_capacity(READ_BUFFER_BYTES, source.open()?))
}
