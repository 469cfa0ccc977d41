//! Limits the statements that run at a time, in total and for each analyst, with a bounded queue.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::GatewayError;
use crate::config::Config;

/// Limits how many statements of analysts run at a time, in total and of one analyst, and lets
/// others wait. A statement is refused if too many of the same analyst wait, or if it has waited
/// for `analyst_wait_ms_max`.
#[derive(Debug)]
pub(super) struct Queue {
    all: Arc<Semaphore>,
    lanes: Mutex<HashMap<String, AnalystLimits>>,
    running_of_one_max: usize,
    waiting_of_one_max: usize,
    wait_max: Duration,
}

/// One analyst's places.
#[derive(Clone, Debug)]
struct AnalystLimits {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A permit to run a statement. Dropping it lets the next one run.
#[derive(Debug)]
pub(super) struct RunPermit {
    _of_one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Queue {
    pub(super) fn new(config: &Config) -> Self {
        let running_max = config.analyst_queries_in_flight_max;
        Self {
            all: Arc::new(Semaphore::new(running_max)),
            lanes: Mutex::default(),
            running_of_one_max: running_max.div_ceil(2),
            waiting_of_one_max: config.analyst_queries_waiting_max,
            wait_max: Duration::from_millis(config.analyst_wait_ms_max),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// When too many wait already, or the wait is too long.
    pub(super) async fn turn(&self, user: &str) -> Result<RunPermit, GatewayError> {
        let AnalystLimits { running, waiting } = self.lane(user);
        let both = async {
            // First of one's own: who waits there takes no place of others.
            let of_one = running.acquire_owned().await.ok()?;
            let of_all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(RunPermit { _of_one: of_one, _of_all: of_all })
        };
        // A place in the queue, or one of those that run already.
        let full = "too many statements of this analyst wait already; try again later";
        let _place = waiting.try_acquire_owned().map_err(|_| GatewayError::busy(full))?;
        let too_late = "other statements ran for so long that this one did not get its turn; try again later";
        let turn = tokio::time::timeout(self.wait_max, both).await;
        turn.ok().flatten().ok_or_else(|| GatewayError::busy(too_late))
    }

    /// There are as many lanes as there are analysts.
    fn lane(&self, user: &str) -> AnalystLimits {
        let mut lanes = self.lanes.lock();
        let lane = lanes.entry(user.to_owned()).or_insert_with(|| AnalystLimits {
            running: Arc::new(Semaphore::new(self.running_of_one_max)),
            // Whoever does not have to wait passes through, too.
            waiting: Arc::new(Semaphore::new(self.waiting_of_one_max + 1)),
        });
        lane.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(running: usize, waiting: usize, wait_ms: u64) -> Queue {
        Queue::new(&Config {
            analyst_queries_in_flight_max: running,
            analyst_queries_waiting_max: waiting,
            analyst_wait_ms_max: wait_ms,
            ..Config::default()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn one_analyst_leaves_places_to_others_and_waits_for_its_own() {
        let queue = queue(4, 1, 1_000);
        let first = queue.turn("a").await.unwrap();
        let second = queue.turn("a").await.unwrap();
        assert!(queue.turn("a").await.is_err(), "in vain for a second");
        let _other = queue.turn("b").await.unwrap();
        let (third, ()) = tokio::join!(queue.turn("a"), async { drop(first) });
        third.unwrap();
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_wait_than_may() {
        let queue = queue(2, 0, 1_000);
        let _running = queue.turn("a").await.unwrap();
        let (waits, refused) = tokio::join!(biased; queue.turn("a"), queue.turn("a"));
        assert!(waits.unwrap_err().message.contains("turn"));
        assert!(refused.unwrap_err().message.contains("wait already"));
    }
}
