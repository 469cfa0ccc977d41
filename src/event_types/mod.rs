//! Event types: schemas for the properties of events, and their versions.
//!
//! An organization registers versions of its types, each with an optional schema. Events are checked
//! against the latest version of their type and record its number. A new version must accept what the last
//! one accepts, unless it is forced. Versions never change, and events that were stored under an older
//! version are kept as they are. See `docs/schema-evolution.md`.

mod check;
mod checking;
mod compatibility;
mod compiled;
mod cost;
mod latest;
mod register;
mod schema;
mod workers;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use checking::Checked;
pub use latest::OrgTypes;
pub use register::{Registered, Registration};
pub use schema::SCHEMA_BYTES_MAX;

use crate::clickhouse::error::QueryError;
use crate::clickhouse::event_types::EventTypeStore;
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clock::ArrivalClock;
use crate::domain::{Error, OrgId, StoredVersion, UnknownTypes, VersionSummary};
use crate::fairness::{Shares, Tenant};
use compiled::CompiledSchemas;
use latest::Latest;
use workers::SchemaWorkers;

/// Most errors that are listed for a schema, a comparison or an event.
const FAULTS_MAX: usize = 10;

/// The limits of event types. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct EventTypeSettings {
    /// Longest type, in bytes.
    pub type_bytes_max: usize,
    /// Most types of an organization.
    pub types_max: u64,
    /// Most versions of a type.
    pub versions_max: usize,
    /// Longest JSON text of an event's properties, in bytes.
    pub properties_bytes_max: usize,
    /// Threads for what schemas cost. 0: one for every two processors, at least
    /// two.
    pub threads_max: usize,
    /// Memory for compiled schemas, in bytes.
    pub compiled_bytes_max: u64,
    /// Longest that the events of a batch are checked, and that one schema is
    /// compared with another.
    pub wait_max: Duration,
    /// Most of the threads and of the memory that one organization uses, in
    /// percent.
    pub share_percent: u32,
}

/// Registers event types and checks events against their latest versions.
pub struct EventTypes {
    settings: EventTypeSettings,
    store: EventTypeStore,
    limiter: Arc<QueryLimiter>,
    clock: Arc<ArrivalClock>,
    latest: Latest,
    compiled: Arc<CompiledSchemas>,
    workers: SchemaWorkers,
    /// Types that are being registered, by organization.
    under_way: Mutex<HashSet<(OrgId, String)>>,
    /// The state of the tables at the last read.
    state_read: tokio::sync::Mutex<Option<String>>,
}

impl EventTypes {
    /// Creates it without types; call [`EventTypes::refresh`] first.
    pub fn new(
        settings: EventTypeSettings,
        store: EventTypeStore,
        limiter: Arc<QueryLimiter>,
        clock: Arc<ArrivalClock>,
    ) -> Self {
        let shares = Shares::new(settings.compiled_bytes_max, settings.share_percent);
        Self {
            compiled: Arc::new(CompiledSchemas::new(shares)),
            workers: SchemaWorkers::new(settings.threads_max, settings.share_percent),
            settings,
            store,
            limiter,
            clock,
            latest: Latest::default(),
            under_way: Mutex::default(),
            state_read: tokio::sync::Mutex::default(),
        }
    }

    /// The event types of an organization; none if it has none.
    pub fn of(&self, org_id: &OrgId) -> Option<Arc<OrgTypes>> {
        self.latest.of(org_id)
    }

    /// Applies an organization's stored decision on unknown types.
    pub fn set_unknown_types(&self, org_id: &OrgId, policy: UnknownTypes) {
        self.latest.set_unknown_types(org_id, policy);
    }

    /// Every type of an organization, by name.
    pub async fn list(&self, org_id: &OrgId) -> Result<Vec<VersionSummary>, Error> {
        self.limiter.run(org_id, |ticket| self.store.list(ticket, org_id)).await
    }

    /// Every version of a type, the latest first.
    ///
    /// # Errors
    /// `NotFound` when it is not registered.
    pub async fn show(&self, org_id: &OrgId, event_type: &str) -> Result<Vec<StoredVersion>, Error> {
        let versions = self.versions(org_id, event_type).await?;
        if versions.is_empty() {
            return Err(Error::not_found("there is no such event type"));
        }
        Ok(versions)
    }

    /// Every version of a type, the latest first; none when it is not
    /// registered.
    async fn versions(&self, org_id: &OrgId, event_type: &str) -> Result<Vec<StoredVersion>, Error> {
        self.limiter.run(org_id, |ticket| self.store.versions(ticket, org_id, event_type)).await
    }

    /// Reads types that other instances have registered. Costs one query if nothing changed.
    pub async fn refresh(&self) -> Result<(), QueryError> {
        let mut state_read = self.state_read.lock().await;
        let changes = self.latest.changes();
        let state = self.limiter.try_run(Tenant::Service, |ticket| self.store.state(ticket)).await?;
        if state_read.as_ref() == Some(&state) {
            return Ok(());
        }
        let versions = self.limiter.try_run(Tenant::Service, |ticket| self.store.latest(ticket)).await?;
        let policies = self.limiter.try_run(Tenant::Service, |ticket| self.store.policies(ticket)).await?;
        // What changed here meanwhile may not be in what was read: next time.
        if self.latest.replace(versions, policies, changes) {
            *state_read = Some(state);
        }
        Ok(())
    }

    /// Refreshes periodically. Never returns.
    pub async fn keep_fresh(&self, pause: Duration) {
        let mut fails = false;
        loop {
            tokio::time::sleep(pause).await;
            let refreshed = self.refresh().await;
            if let Err(error) = &refreshed
                && !fails
            {
                tracing::warn!(%error, "could not read event types that other instances register");
            }
            fails = refreshed.is_err();
        }
    }
}

/// The error for the caller; the cause goes to the log.
fn failed(error: QueryError) -> Error {
    tracing::warn!(%error, "a query about event types failed");
    error.into()
}
