//! The bound on requests in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::domain::Error;

/// How long a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Lets in so many requests at a time, and refuses the rest at once: a queue
/// would only make everybody late.
pub(super) struct Gate {
    in_flight: AtomicUsize,
    max: usize,
}

/// A request's place among those in flight, until it is dropped.
pub(super) struct Place(Arc<Gate>);

impl Gate {
    /// Lets in `max` requests at a time.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { in_flight: AtomicUsize::new(0), max })
    }

    /// A place for a request.
    ///
    /// # Errors
    /// `Exhausted` when all are taken.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, Error> {
        let (place, before) = self.count();
        if before < self.max { Ok(place) } else { Err(Error::exhausted("too many requests at a time", RETRY_AFTER)) }
    }

    /// A place for what is never refused: a probe must not fail because there
    /// is much to do.
    pub(super) fn enter_over_the_bound(self: &Arc<Self>) -> Place {
        self.count().0
    }

    /// How many requests there are.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// One more request, and how many there were before it.
    fn count(self: &Arc<Self>) -> (Place, usize) {
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (Place(Arc::clone(self)), before)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_when_its_request_ends_or_was_refused() {
        let gate = Gate::new(2);
        let first = gate.enter().ok();
        let second = gate.enter().ok();
        assert!(first.is_some() && second.is_some());
        assert!(gate.enter().is_err());
        drop(first);
        let third = gate.enter().ok();
        assert!(third.is_some());
        assert!(gate.enter().is_err());
        drop((second, third));
        assert_eq!(gate.in_flight(), 0);
    }
}
