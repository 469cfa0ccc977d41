//! Knows which batches have taken arrivals and are not in the log yet.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The batches under way, by their first arrivals.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    firsts: Mutex<BTreeSet<u64>>,
    ended: Notify,
}

impl InFlight {
    /// Adds the batch whose first arrival `take` returns. No cut falls between both.
    pub(super) fn begin(self: &Arc<Self>, take: impl FnOnce() -> u64) -> BatchArrivals {
        let mut firsts = self.firsts.lock();
        let first = take();
        firsts.insert(first);
        BatchArrivals { first, in_flight: Arc::clone(self) }
    }

    /// Takes an arrival by which batches can be told apart: those that [`InFlight::passed`] waits for, and later ones.
    pub(super) fn cut(&self, take: impl FnOnce() -> u64) -> u64 {
        let _firsts = self.firsts.lock();
        take()
    }

    /// Returns once no batch with an arrival before this one is under way.
    pub(super) async fn passed(&self, cut: u64) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.firsts.lock().first().is_none_or(|first| *first >= cut) {
                return;
            }
            ended.await;
        }
    }
}

/// The arrivals of a batch. To be dropped when the log has answered, or will not be asked.
#[derive(Debug)]
pub struct BatchArrivals {
    first: u64,
    in_flight: Arc<InFlight>,
}

impl BatchArrivals {
    /// The first; the others follow without a gap.
    pub const fn first(&self) -> u64 {
        self.first
    }
}

impl Drop for BatchArrivals {
    fn drop(&mut self) {
        self.in_flight.firsts.lock().remove(&self.first);
        self.in_flight.ended.notify_waiters();
    }
}
