//! The hours in which the events of a segment lie, read from its file.

use crate::event_row::{self, Rows};
use crate::hour_versions::TouchedHours;
use crate::log::{FrameError, Segment, SegmentFrames};

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
    if reader.columns() != event_row::COLUMNS {
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

/// Notes which hours the rows lie in. (Rows of other columns, which another
/// version wrote, touch nothing: cached answers about them age out instead.)
pub fn touch_hours(rows: &[u8], touched: &mut TouchedHours) {
    for span in Rows::whole(rows).map_while(Result::ok) {
        // An id begins with the organization, behind its length: one byte, as
        // organizations are short.
        let id = &rows[span.id];
        let org = id.first().and_then(|length| id.get(1..=usize::from(*length)));
        if let Some(org) = org.and_then(|org| std::str::from_utf8(org).ok()) {
            touched.touch(org, span.occurred_at);
        }
    }
}
