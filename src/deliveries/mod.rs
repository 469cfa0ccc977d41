//! Deliveries: hands accepted events on, each user's once and in order. The engine is the crate `tallyhouse-delivery`; this
//! module gives it the service's log to read, and is the application behind its interfaces.
//!
//! `event_pipeline` is the interface of `/pipeline`, whose events are recorded in Redis; `subscriptions` are those that
//! organizations make. See `docs/delivery.md`.

pub mod event_pipeline;
pub mod log_source;
mod recent_ids;
pub mod subscriptions;
