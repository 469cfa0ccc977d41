//! Threads for expensive work on schemas, shared fairly among organizations.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::{Error, OrgId};
use crate::fairness::{FairSemaphore, Shares, Tenant};

/// Threads at least.
const THREADS_MIN: usize = 2;
/// How long a caller is told to wait when there was no turn for it.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Threads on which schemas are compiled, compared, and checked against events if that is
/// expensive. Organizations use them in turns.
pub(super) struct SchemaWorkers {
    turns: Arc<FairSemaphore>,
}

impl SchemaWorkers {
    /// So many threads, or, where that is 0, one for every two processors and at
    /// least two. An organization uses up to a share of them, in percent.
    pub(super) fn new(threads_max: usize, share_percent: u32) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads_max == 0 { (processors / 2).max(THREADS_MIN) } else { threads_max };
        Self { turns: FairSemaphore::new(Shares::new(threads as u64, share_percent)) }
    }

    /// Works on one of the threads, when it is the organization's turn; none
    /// when that is not before the deadline. Work that has begun goes on when
    /// the caller goes, and keeps its thread until it ends.
    pub(super) async fn run_before<T: Send + 'static>(
        &self,
        deadline: Instant,
        org_id: &OrgId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let tenant = Tenant::from(org_id);
        let turn = tokio::time::timeout_at(deadline, self.turns.acquire(&tenant, 1)).await;
        let Ok(Ok(turn)) = turn else { return None };
        let worked = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        worked.await.inspect_err(|error| tracing::error!(%error, "a task for a schema failed")).ok()
    }

    /// The same for a caller that can be told to come again.
    ///
    /// # Errors
    /// `Exhausted` when it is not the organization's turn in time.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        org_id: &OrgId,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let busy = || Error::exhausted("too many schemas of this organization are being worked on", RETRY_AFTER);
        self.run_before(deadline, org_id, work).await.ok_or_else(busy)
    }
}
