//! Counts the bytes of answers until they have been written to the connection or dropped.
//!
//! hyper and h2 buffer what a peer does not read. The buffers passed to them are wrapped, so that their
//! size and age are known.

use std::sync::Arc;

use bytes::Bytes;

use super::Call;
use crate::transport::concurrency::OrgUse;

/// Most bytes that are handed over as one piece: a frame of HTTP/2 as large as
/// peers take by default. A peer must take a piece within the write deadline.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Answers of fewer bytes are not counted: their number is bounded, and they
/// are most.
const COUNTED_BYTES_MIN: usize = 1 << 10;

/// Bytes that are counted as waiting to be written, on the account of the
/// service, the connection and the organization of a call, until it is dropped.
pub(in crate::transport) struct HeldBytes {
    call: Arc<Call>,
    org: Option<Arc<OrgUse>>,
    bytes: u64,
}

impl HeldBytes {
    pub(super) fn new(call: &Arc<Call>, bytes: u64) -> Self {
        let org = call.org();
        call.connection.all().hold_bytes(&call.connection, bytes);
        if let Some(org) = &org {
            org.hold_unwritten(bytes);
        }
        Self { call: Arc::clone(call), org, bytes }
    }

    /// Gives so many of them to another.
    fn split(&mut self, bytes: u64) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { call: Arc::clone(&self.call), org: self.org.clone(), bytes }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if let Some(org) = &self.org {
            org.release_unwritten(self.bytes);
        }
        self.call.connection.all().release_bytes(&self.call.connection, self.bytes);
    }
}

/// Bytes that are being handed over, piece by piece.
pub(super) struct UnwrittenPieces {
    call: Arc<Call>,
    bytes: Bytes,
    /// None where they are not counted.
    held: Option<HeldBytes>,
}

impl UnwrittenPieces {
    /// Of a call's answer. Bytes that are shared by all callers are not
    /// counted.
    pub(super) fn new(call: &Arc<Call>, bytes: Bytes, are_shared: bool) -> Self {
        let is_counted = !are_shared && bytes.len() >= COUNTED_BYTES_MIN;
        let held = is_counted.then(|| HeldBytes::new(call, bytes.len() as u64));
        Self { call: Arc::clone(call), bytes, held }
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next piece; whether it was the last.
    pub(super) fn next(&mut self) -> (Bytes, bool) {
        let bytes = self.bytes.split_to(self.bytes.len().min(PIECE_BYTES_MAX));
        let slot = self.call.connection.note_unwritten();
        let held = self.held.as_mut().map(|held| held.split(bytes.len() as u64));
        let piece = Piece { call: Arc::clone(&self.call), bytes, slot, _held: held };
        (Bytes::from_owner(piece), self.bytes.is_empty())
    }
}

/// A piece that has been handed over, until it has been written. It keeps its
/// call, and with it the call's permit.
struct Piece {
    call: Arc<Call>,
    bytes: Bytes,
    slot: usize,
    _held: Option<HeldBytes>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.connection.note_written(self.slot);
    }
}
