//! Tallyhouse counts every event id exactly once.
//!
//! The path of an event:
//!
//! 1. A [`transport`] (gRPC, grpc-web or REST, on one port) decodes it into a draft, and passes the batch
//!    to the [`ingest::pipeline`].
//! 2. The [`domain`] parses the draft into an event, or rejects it with every invalid field. The
//!    [`event_types`] of its organization check its properties.
//! 3. The event is encoded once, into the bytes that ClickHouse will receive, and its id is claimed in the
//!    [`ingest::index`]: it is new, known, or pending in another batch, whose result it then gets.
//! 4. New events are appended to the [`log`]; when they are synced to disk, the caller is
//!    answered.
//! 5. The [`ingest::forwarder`] inserts each sealed segment of the log into [`clickhouse`] as one block
//!    under one token, until that succeeds. Materialized views add the block to the rollups.
//! 6. [`query`] answers from the rollups, through a cache that is invalidated by stored events.
//! 7. The [`audit`] compares the rollups with the events, hour by hour, and repairs them.
//! 8. [`retention`] deletes months of events that have passed the retention period.
//!
//! [`server`] constructs all of this from a [`config::Config`]. The [`cli`] is the binary's command line.

pub mod audit;
pub mod backup;
pub mod cli;
pub mod clickhouse;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod deliveries;
pub mod directory;
pub mod domain;
pub mod event_intake;
pub mod event_row;
pub mod event_store;
pub mod event_types;
pub mod fairness;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod hour_versions;
pub mod idempotency;
pub mod ingest;
pub mod instruments;
mod json;
pub mod limits;
pub mod log;
mod private_files;
pub mod query;
mod regular_file;
pub mod retention;
mod secret;
pub mod server;
pub mod sql_gateway;
pub mod telemetry;
pub mod trace;
pub mod transport;
pub mod write_keys;
