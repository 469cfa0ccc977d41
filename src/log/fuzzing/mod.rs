//! Targets of fuzzing: what is on the disk.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod recovery;
pub(crate) mod segment;

use uuid::Uuid;

use super::frame::{Frame, SegmentHeader};
use crate::log::dedup_window::DedupWindow;

/// A segment of these frames.
pub(in crate::log) fn written(id: Uuid, frames: &[&[u8]]) -> Vec<u8> {
    let header =
        SegmentHeader { id, opened_at_micros: 7, dedup_window: DedupWindow::default(), columns: "a,b".to_owned() };
    let mut bytes = header.encode();
    for frame in frames {
        let mut buffer = Frame::buffer(frame.len());
        buffer.extend_from_slice(frame);
        bytes.extend_from_slice(Frame::seal(buffer, 1).bytes());
    }
    bytes
}
