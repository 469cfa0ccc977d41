//! The state of one open connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use tokio_util::sync::CancellationToken;

use super::{Connections, Seconds};
use crate::transport::concurrency::{Concurrency, ConnectionUse};

/// Largest tracked age of unwritten bytes, in seconds. Write deadlines must be shorter.
const UNWRITTEN_SECONDS_MAX: usize = 64;

/// A connection, from its acceptance until it is closed. Everything that it
/// causes counts what it holds here.
pub(in crate::transport) struct Connection {
    pub(super) id: u64,
    pub(super) all: Arc<Connections>,
    concurrency: Arc<Concurrency>,
    /// Cancelled to close the connection at once.
    cut_off: CancellationToken,
    /// Since when a client that has sent no request yet is waited for.
    pub(super) waits_since: AtomicU32,
    /// Whether the client has begun to speak HTTP.
    pub(super) has_spoken: AtomicBool,
    /// When bytes last arrived.
    pub(super) last_read: AtomicU32,
    /// Since when the socket takes no bytes, plus one; 0 when it does.
    write_blocked: AtomicU32,
    /// Pieces of answers that have been handed over to be written and have not
    /// been, by the second in which that was (modulo the array's length).
    unwritten: [AtomicU32; UNWRITTEN_SECONDS_MAX],
    /// Bytes of answers that wait to be written.
    unwritten_bytes: AtomicU64,
    /// Calls, from their first byte until their answer is written.
    pub(super) calls: AtomicUsize,
    /// Permits of its calls, by class.
    permits: Arc<ConnectionUse>,
    /// Whether a call on it had a right to be served.
    pub(super) is_known: AtomicBool,
}

impl Connection {
    pub(super) fn new(id: u64, all: Arc<Connections>) -> Self {
        let now = all.now();
        Self {
            id,
            concurrency: Arc::clone(&all.concurrency),
            all,
            cut_off: CancellationToken::new(),
            waits_since: AtomicU32::new(now),
            has_spoken: AtomicBool::new(false),
            last_read: AtomicU32::new(now),
            write_blocked: AtomicU32::new(0),
            unwritten: std::array::from_fn(|_| AtomicU32::new(0)),
            unwritten_bytes: AtomicU64::new(0),
            calls: AtomicUsize::new(0),
            permits: Arc::default(),
            is_known: AtomicBool::new(false),
        }
    }

    /// All connections of the service.
    pub(in crate::transport) const fn all(&self) -> &Arc<Connections> {
        &self.all
    }

    /// What its calls share with those of all others.
    pub(in crate::transport) const fn concurrency(&self) -> &Arc<Concurrency> {
        &self.concurrency
    }

    /// The permits of its calls.
    pub(in crate::transport) const fn permits(&self) -> &Arc<ConnectionUse> {
        &self.permits
    }

    /// Closes the connection at once.
    pub(in crate::transport) fn cut_off(&self) {
        self.cut_off.cancel();
    }

    /// Waits until the connection is to be closed at once.
    pub(in crate::transport) async fn is_cut_off(&self) {
        self.cut_off.cancelled().await;
    }

    /// A call on it may be served: it is the last to be closed when there are
    /// too many connections.
    pub(in crate::transport) fn note_known(&self) {
        if !self.is_known.load(Ordering::Relaxed) {
            self.is_known.store(true, Ordering::Relaxed);
        }
    }

    /// The TLS handshake is over, and the client has yet to send a request.
    pub(in crate::transport) fn note_handshake(&self) {
        self.waits_since.store(self.all.now(), Ordering::Relaxed);
        self.has_spoken.store(false, Ordering::Relaxed);
    }

    pub(super) fn note_read(&self) {
        self.last_read.store(self.all.now(), Ordering::Relaxed);
    }

    pub(super) fn note_write(&self, is_blocked: bool) {
        let before = self.write_blocked.load(Ordering::Relaxed);
        match (is_blocked, before) {
            (false, 0) => {}
            (false, _) => self.write_blocked.store(0, Ordering::Relaxed),
            (true, 0) => self.write_blocked.store(self.all.now().saturating_add(1), Ordering::Relaxed),
            (true, _) => {}
        }
    }

    /// Notes a piece of an answer that now waits to be written. Returns what
    /// [`Connection::note_written`] must be given.
    pub(in crate::transport) fn note_unwritten(&self) -> usize {
        let slot = self.all.now() as usize % UNWRITTEN_SECONDS_MAX;
        self.unwritten[slot].fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// A piece has been written, or is not needed any more.
    pub(in crate::transport) fn note_written(&self, slot: usize) {
        self.unwritten[slot].fetch_sub(1, Ordering::Relaxed);
    }

    /// Bytes of answers that wait to be written.
    pub(in crate::transport) fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes.load(Ordering::Relaxed)
    }

    pub(in crate::transport) fn add_unwritten_bytes(&self, bytes: u64) {
        self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::transport) fn subtract_unwritten_bytes(&self, bytes: u64) {
        self.unwritten_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// For how many seconds its peer has not read its answers.
    pub(super) fn stalled_for(&self, now: Seconds) -> Seconds {
        let blocked = match self.write_blocked.load(Ordering::Relaxed) {
            0 => 0,
            since => now.saturating_sub(since - 1),
        };
        let oldest = (0..=now).take(UNWRITTEN_SECONDS_MAX).filter(|age| {
            let slot = (now - age) as usize % UNWRITTEN_SECONDS_MAX;
            self.unwritten[slot].load(Ordering::Relaxed) > 0
        });
        blocked.max(oldest.last().unwrap_or_default())
    }
}
