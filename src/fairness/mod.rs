//! Fair sharing of resources that all organizations use.
//!
//! [`Shares`] limits how much of a resource a tenant can hold, `queue` decides who gets a released unit,
//! and [`FairSemaphore`] lets tasks wait for one. Used for queries in ClickHouse, look-ups of late events,
//! bytes of events in memory, live-tail watchers, audits, schema checks and idempotency keys. Rates over
//! time are limited in [`crate::limits`]. See `docs/fair-shares.md`.

mod queue;
mod semaphore;
mod shares;

pub use semaphore::{FairPermit, FairSemaphore, TooManyWaiting};
pub use shares::Shares;

use crate::domain::OrgId;

/// The tenant that uses a shared resource.
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
