//! Sharing what all organizations use: how much of it one of them may hold,
//! and who is served next.
//!
//! [`Shares`] says how much of a shared resource a tenant may hold, `queue`
//! decides who gets what becomes free, and [`FairSemaphore`] lets tasks wait
//! for it. Queries in ClickHouse, look-ups of late events, bytes of events on
//! their way, live-tail watchers, audits, checks against schemas and
//! idempotency keys are shared this way. Rates over time are limited elsewhere,
//! in [`crate::limits`]. See `docs/fair-shares.md`.

mod queue;
mod semaphore;
mod shares;

pub use semaphore::{FairPermit, FairSemaphore, TooManyWaiting};
pub use shares::Shares;

use crate::domain::OrgId;

/// On whose behalf something shared is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tenant {
    /// The service itself: the background audit, the refresh of event types.
    Service,
    /// An organization.
    Organization(OrgId),
}

impl From<&OrgId> for Tenant {
    fn from(org_id: &OrgId) -> Self {
        Self::Organization(org_id.clone())
    }
}
