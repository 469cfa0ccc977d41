//! The transports: gRPC, grpc-web and REST on one port.
//!
//! A transport parses requests into domain types, calls the application, and writes the answer. It decides
//! nothing: the same request through any transport has the same result. Shared code (authentication, error
//! codes, times, properties, page tokens) is in this folder.

mod auth;
mod call;
mod concurrency;
mod connections;
mod context;
mod cursor;
mod drain;
mod edge;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grpc;
mod properties;
mod protocol;
mod rest;
pub(crate) mod rfc3339;
mod serve;
mod tail;
mod ticketing;

use std::sync::Arc;

use tokio::sync::watch;

pub use auth::{AuthError, Callers};
pub use connections::{Tls, TlsError, raise_descriptor_limit};
pub use cursor::Cursors;
pub use serve::{ServeError, serve};
pub use tail::LiveTail;
pub use ticketing::AdminScopeVerifier;

use crate::audit::Auditor;
use crate::clickhouse::engine::SandboxStatus;
use crate::config::Config;
use crate::directory::Directory;
use crate::event_types::EventTypes;
use crate::health::Health;
use crate::idempotency::IdempotentIngest;
use crate::ingest::clock::ArrivalClock;
use crate::ingest::log::Log;
use crate::ingest::pipeline::Pipeline;
use crate::limits::RateLimits;
use crate::query::Queries;
use crate::telemetry::Metrics;

/// The protocol's types and services, generated from `proto/`.
#[allow(missing_docs, clippy::all, unreachable_pub, unused_qualifications, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tallyhouse.v1");

    /// The protocol's description, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tallyhouse.binpb"));
}

/// What the transports call.
pub struct Application {
    /// Every limit.
    pub config: Config,
    /// The time.
    pub clock: Arc<ArrivalClock>,
    /// Who may do what.
    pub callers: Callers,
    /// Events in.
    pub pipeline: Arc<Pipeline>,
    /// Events in, by calls that can be repeated.
    pub repeatable_calls: Arc<IdempotentIngest>,
    /// What events must look like. The pipeline must have the same.
    pub event_types: Arc<EventTypes>,
    /// How much each organization and user may do.
    pub limits: Arc<RateLimits>,
    /// Answers out.
    pub queries: Queries,
    /// Organizations, users, memberships.
    pub directory: Directory,
    /// Where lists go on.
    pub cursors: Cursors,
    /// Whether the rollups are right.
    pub auditor: Arc<Auditor>,
    /// The segments that are not in ClickHouse yet.
    pub log: Arc<Log>,
    /// Verdicts as they are made, for those who watch. The same tail must be
    /// among the pipeline's outcome sinks.
    pub tail: Arc<LiveTail>,
    /// The ticketing catalogue, if it is on.
    pub ticketing: Option<Arc<tallyhouse_catalogue::http::Api>>,
    /// Why events are refused or counted late.
    pub health: Arc<Health>,
    /// What the service counts of itself.
    pub metrics: Arc<Metrics>,
    /// Whether ClickHouse answered when it was last asked something.
    pub clickhouse_up: watch::Receiver<bool>,
    /// How much of the embedded engine's sandbox is in force; none where ClickHouse is
    /// another's.
    pub engine_sandbox: Option<SandboxStatus>,
}
