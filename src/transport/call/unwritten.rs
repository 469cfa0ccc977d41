//! Bytes of answers from when they are made until they have been written to
//! the connection, or are not needed any more.
//!
//! hyper and h2 keep what a peer does not take. What is handed to them is
//! therefore wrapped, so that it is known how much they keep and for how long.

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

/// Bytes that are being handed over, piece by piece.
pub(super) struct Unwritten {
    call: Arc<Call>,
    bytes: Bytes,
    holder: Option<Holder>,
}

/// On whose account they are counted.
#[derive(Clone)]
struct Holder(Option<Arc<OrgUse>>);

impl Unwritten {
    /// Of a call's answer. Bytes that are shared by all callers are not
    /// counted.
    pub(super) fn new(call: &Arc<Call>, bytes: Bytes, are_shared: bool) -> Self {
        let is_counted = !are_shared && bytes.len() >= COUNTED_BYTES_MIN;
        let holder = is_counted.then(|| Holder(call.org()));
        if let Some(holder) = &holder {
            hold(call, holder, bytes.len() as u64);
        }
        Self { call: Arc::clone(call), bytes, holder }
    }

    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The next piece; whether it was the last.
    pub(super) fn next(&mut self) -> (Bytes, bool) {
        let bytes = self.bytes.split_to(self.bytes.len().min(PIECE_BYTES_MAX));
        let slot = self.call.connection.note_unwritten();
        let piece = Piece { call: Arc::clone(&self.call), bytes, slot, holder: self.holder.clone() };
        (Bytes::from_owner(piece), self.bytes.is_empty())
    }
}

impl Drop for Unwritten {
    fn drop(&mut self) {
        if let Some(holder) = &self.holder {
            release(&self.call, holder, self.bytes.len() as u64);
        }
    }
}

/// A piece that has been handed over, until it has been written. It keeps its
/// call, and with it the call's permit.
struct Piece {
    call: Arc<Call>,
    bytes: Bytes,
    slot: usize,
    holder: Option<Holder>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.call.connection.note_written(self.slot);
        if let Some(holder) = &self.holder {
            release(&self.call, holder, self.bytes.len() as u64);
        }
    }
}

fn hold(call: &Call, holder: &Holder, bytes: u64) {
    call.connection.all().hold_bytes(&call.connection, bytes);
    if let Holder(Some(org)) = holder {
        org.hold_unwritten(bytes);
    }
}

fn release(call: &Call, holder: &Holder, bytes: u64) {
    if let Holder(Some(org)) = holder {
        org.release_unwritten(bytes);
    }
    call.connection.all().release_bytes(&call.connection, bytes);
}
