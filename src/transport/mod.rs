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

/// The application that transports call.
pub struct Application {
    /// The configuration.
    pub config: Config,
    /// The clock.
    pub clock: Arc<ArrivalClock>,
    /// Authentication.
    pub callers: Callers,
    /// Send events.
    pub pipeline: Arc<Pipeline>,
    /// Ingest with idempotency keys.
    pub repeatable_calls: Arc<IdempotentIngest>,
    /// Event types; the same as in the pipeline.
    pub event_types: Arc<EventTypes>,
    /// Rate limits.
    pub limits: Arc<RateLimits>,
    /// Queries.
    pub queries: Queries,
    /// Organizations, users, memberships.
    pub directory: Directory,
    /// Cursors of lists.
    pub cursors: Cursors,
    /// The audit.
    pub auditor: Arc<Auditor>,
    /// The segments that are not in ClickHouse yet.
    pub log: Arc<Log>,
    /// The live tail of verdicts; also one of the pipeline's outcome sinks.
    pub tail: Arc<LiveTail>,
    /// The ticketing catalogue, if it is on.
    pub ticketing: Option<Arc<tallyhouse_catalogue::http::Api>>,
    /// Why events are refused or counted late.
    pub health: Arc<Health>,
    /// Metrics of the service.
    pub metrics: Arc<Metrics>,
    /// Whether ClickHouse answered the last check.
    pub clickhouse_up: watch::Receiver<bool>,
    /// How much of the embedded engine's sandbox is in force; none where ClickHouse is
    /// another's.
    pub engine_sandbox: Option<SandboxStatus>,
}
