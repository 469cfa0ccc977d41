//! ClickHouse: the tables, inserts, queries, and the embedded engine. All SQL is in this module.

pub mod analysts;
pub mod arrivals;
pub mod audit;
pub mod backup;
pub mod cancel;
pub mod client;
pub mod daily_metrics;
pub mod directory;
pub mod engine;
pub mod erasure;
pub mod error;
pub mod event_types;
pub mod migrations;
mod native;
pub mod operation;
pub mod ping;
mod pinned;
pub mod query_limiter;
pub mod query_store;
pub mod retention;
pub mod server_check;
pub mod store;
pub mod ticket;
mod top_users;
pub mod write_keys;
