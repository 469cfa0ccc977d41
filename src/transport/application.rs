//! The application that transports call, assembled by `server.rs`.

use std::sync::Arc;

use tokio::sync::watch;

use super::auth::Callers;
use super::cursor::Cursors;
use super::tail::LiveTail;
use super::website::Website;
use crate::audit::Auditor;
use crate::clickhouse::engine::SandboxStatus;
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::deliveries::event_pipeline::EventPipeline;
use crate::deliveries::subscriptions::Subscriptions;
use crate::directory::Directory;
use crate::event_intake::EventIntake;
use crate::event_types::EventTypes;
use crate::health::Health;
use crate::limits::RateLimits;
use crate::log::EventLog;
use crate::query::Queries;
use crate::sql_gateway::Gateway;
use crate::telemetry::Metrics;
use crate::write_keys::WriteKeys;

/// The application that transports call.
pub struct Application {
    /// The configuration.
    pub config: Config,
    /// The clock.
    pub clock: Arc<ArrivalClock>,
    /// Authentication.
    pub callers: Callers,
    /// Takes events.
    pub intake: Arc<EventIntake>,
    /// Event types; the same as in the pipeline.
    pub event_types: Arc<EventTypes>,
    /// Rate limits.
    pub limits: Arc<RateLimits>,
    /// Queries.
    pub queries: Queries,
    /// Organizations, users, memberships.
    pub directory: Directory,
    /// What is accepted in place of tokens by those who only send events.
    pub write_keys: Arc<WriteKeys>,
    /// Cursors of lists.
    pub cursors: Cursors,
    /// The audit.
    pub auditor: Arc<Auditor>,
    /// The segments that are not in ClickHouse yet.
    pub log: Arc<dyn EventLog>,
    /// The live tail of verdicts; also one of the pipeline's outcome sinks.
    pub tail: Arc<LiveTail>,
    /// The ticketing catalogue, if it is on.
    pub ticketing: Option<Arc<tallyhouse_catalogue::http::Api>>,
    /// The event pipeline, if it is on.
    pub event_pipeline: Option<Arc<EventPipeline>>,
    /// The subscriptions of organizations.
    pub subscriptions: Arc<Subscriptions>,
    /// Why events are refused or counted late.
    pub health: Arc<Health>,
    /// Metrics of the service.
    pub metrics: Arc<Metrics>,
    /// Whether ClickHouse answered the last check.
    pub clickhouse_up: watch::Receiver<bool>,
    /// How much of the embedded engine's sandbox is in force; none where ClickHouse is
    /// another's.
    pub engine_sandbox: Option<SandboxStatus>,
    /// Analysts' SQL, if there is a port for it.
    pub sql: Option<Gateway>,
    /// The dashboard, if it was built.
    pub website: Option<Arc<Website>>,
}
