//! Which hours the events of a segment lie in, read from its file.

use super::forwarder::touch_hours;
use super::log::{FrameError, Segment, SegmentFrames};
use super::row;
use super::stored::TouchedHours;

/// The hours of a segment.
#[derive(Debug)]
pub enum SegmentHours {
    /// These.
    Known(TouchedHours),
    /// Its rows have columns of another version: it may be any.
    Unknown,
}

/// Reads a segment's hours. Blocks. Of a damaged segment, those of the frames
/// before the damage: it cannot be inserted any more, so nothing behind it is
/// on its way.
///
/// # Errors
/// When the file cannot be read; it may have gone, or have a new name.
pub fn read_hours(segment: &Segment) -> Result<SegmentHours, FrameError> {
    let mut touched = TouchedHours::default();
    let mut reader = match SegmentFrames::open(segment) {
        Ok(reader) => reader,
        Err(FrameError::Torn | FrameError::Damaged) => return Ok(SegmentHours::Known(touched)),
        Err(error @ FrameError::Io(_)) => return Err(error),
    };
    if reader.columns() != row::COLUMNS {
        return Ok(SegmentHours::Unknown);
    }
    let mut rows = Vec::new();
    loop {
        rows.clear();
        match reader.next_frame(&mut rows) {
            Ok(Some(_)) => touch_hours(&rows, &mut touched),
            Ok(None) | Err(FrameError::Torn | FrameError::Damaged) => return Ok(SegmentHours::Known(touched)),
            Err(error @ FrameError::Io(_)) => return Err(error),
        }
    }
}
