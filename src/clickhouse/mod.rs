//! ClickHouse.

pub mod engine;
pub mod ping;
