//! A semaphore that tenants share fairly.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Tenant;
use super::queue::{FairQueue, RequestId, Requested};
use super::shares::Shares;

/// Most requests of one tenant that wait for a semaphore at a time.
const WAITING_PER_TENANT_MAX: usize = 1_024;

/// Too many requests of this tenant wait already: 1,024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests of this organization wait already")]
pub struct TooManyWaiting;

/// A number of units that tenants take and give back.
///
/// Unlike [`tokio::sync::Semaphore`], it serves the tenant that holds least
/// first, not who came first, and lets no tenant hold more than its share.
pub struct FairSemaphore {
    state: Mutex<State>,
}

struct State {
    queue: FairQueue<Tenant>,
    /// The wakers of waiting requests.
    waiters: HashMap<RequestId, oneshot::Sender<()>>,
}

impl State {
    /// Grants all requests that can be granted, and wakes them.
    fn grant_all(&mut self) {
        while let Some(id) = self.queue.next() {
            if let Some(waiter) = self.waiters.remove(&id) {
                // Whoever has just gone gives back what it was granted.
                let _ = waiter.send(());
            }
        }
    }
}

impl FairSemaphore {
    /// Shares by these rules.
    pub fn new(shares: Shares) -> Arc<Self> {
        let queue = FairQueue::new(shares, WAITING_PER_TENANT_MAX);
        Arc::new(Self { state: Mutex::new(State { queue, waiters: HashMap::new() }) })
    }

    /// Takes `wanted` units for a tenant without waiting. None when they are
    /// not free, when others wait for them, or when they are over its share.
    pub fn try_acquire(self: &Arc<Self>, tenant: &Tenant, wanted: u64) -> Option<FairPermit> {
        let is_granted = self.state.lock().queue.try_request(tenant, wanted);
        is_granted.then(|| self.permit(tenant, wanted))
    }

    /// Takes `wanted` units for a tenant, or its whole share if that is less, as soon as it is its
    /// turn. A dropped call leaves the queue.
    ///
    /// # Errors
    /// When too many requests of the tenant wait already.
    pub async fn acquire(self: &Arc<Self>, tenant: &Tenant, wanted: u64) -> Result<FairPermit, TooManyWaiting> {
        let (mut waiter, granted, wanted) = {
            let mut state = self.state.lock();
            let wanted = state.queue.clamped(wanted);
            let id = match state.queue.request(tenant, wanted) {
                Requested::Granted => return Ok(self.permit(tenant, wanted)),
                Requested::Refused => return Err(TooManyWaiting),
                Requested::Queued(id) => id,
            };
            let (waker, granted) = oneshot::channel();
            state.waiters.insert(id, waker);
            state.grant_all();
            (Waiter { semaphore: Arc::clone(self), tenant: tenant.clone(), wanted, id: Some(id) }, granted, wanted)
        };
        // The sender goes only after it has been used.
        let _ = granted.await;
        waiter.id = None;
        Ok(self.permit(tenant, wanted))
    }

    /// How many units are held.
    pub fn taken(&self) -> u64 {
        self.state.lock().queue.taken()
    }

    fn permit(self: &Arc<Self>, tenant: &Tenant, units: u64) -> FairPermit {
        FairPermit { semaphore: Arc::clone(self), tenant: tenant.clone(), units }
    }

    fn release(&self, tenant: &Tenant, units: u64) {
        let mut state = self.state.lock();
        state.queue.release(tenant, units);
        state.grant_all();
    }
}

/// Units that a tenant holds, until it is dropped.
pub struct FairPermit {
    semaphore: Arc<FairSemaphore>,
    tenant: Tenant,
    units: u64,
}

impl FairPermit {
    /// How many units it holds: fewer than were wanted where the share is less.
    pub const fn units(&self) -> u64 {
        self.units
    }
}

impl Drop for FairPermit {
    fn drop(&mut self) {
        self.semaphore.release(&self.tenant, self.units);
    }
}

/// A place in the queue, until it is dropped.
struct Waiter {
    semaphore: Arc<FairSemaphore>,
    tenant: Tenant,
    wanted: u64,
    /// None once it has been granted and taken.
    id: Option<RequestId>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.semaphore.state.lock();
        state.waiters.remove(&id);
        if !state.queue.cancel(&self.tenant, id) {
            // It was granted, and nobody has taken it.
            state.queue.release(&self.tenant, self.wanted);
        }
        state.grant_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::domain::OrgId;

    fn org(name: &str) -> Tenant {
        Tenant::from(&OrgId::parse(name).unwrap())
    }

    #[tokio::test]
    async fn who_goes_while_waiting_leaves_no_trace() {
        let semaphore = FairSemaphore::new(Shares::new(2, 50));
        let (acme, beta) = (org("acme"), org("beta"));
        let held = semaphore.acquire(&acme, 1).await.unwrap();
        let mut waiting = Box::pin(semaphore.acquire(&acme, 1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        assert!(semaphore.state.lock().waiters.is_empty());
        // Granted, and gone before it was taken.
        let mut granted = Box::pin(semaphore.acquire(&acme, 1));
        assert!(granted.as_mut().now_or_never().is_none());
        drop(held);
        assert_eq!(semaphore.taken(), 1);
        drop(granted);
        assert_eq!(semaphore.taken(), 0);
        assert!(semaphore.try_acquire(&beta, 1).is_some());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_flood_keeps_nobody_out_and_all_is_given_back() {
        let semaphore = FairSemaphore::new(Shares::new(4, 50));
        let flood: Vec<_> = (0..200)
            .map(|_| {
                let semaphore = Arc::clone(&semaphore);
                tokio::spawn(async move {
                    let permit = semaphore.acquire(&org("acme"), 1).await.unwrap();
                    assert!(semaphore.taken() <= 4);
                    tokio::task::yield_now().await;
                    drop(permit);
                })
            })
            .collect();
        for _ in 0..50 {
            let permit = tokio::time::timeout(Duration::from_secs(60), semaphore.acquire(&org("beta"), 2)).await;
            assert_eq!(permit.unwrap().unwrap().units(), 2);
        }
        for task in flood {
            task.await.unwrap();
        }
        assert_eq!(semaphore.taken(), 0);
    }

    #[tokio::test]
    async fn without_waiting_a_share_is_a_share() {
        let semaphore = FairSemaphore::new(Shares::new(4, 50));
        let acme = org("acme");
        let held: Vec<FairPermit> = std::iter::from_fn(|| semaphore.try_acquire(&acme, 1)).take(10).collect();
        assert_eq!(held.len(), 2);
        assert!(semaphore.try_acquire(&org("beta"), 1).is_some());
        assert!(semaphore.try_acquire(&org("beta"), 3).is_none());
    }
}
