//! Deliveries: hands accepted events on, each user's once and in order. The engine is the crate `tallyhouse-delivery`; this
//! module gives it the service's log to read, and is the application behind its interfaces.
//!
//! `log_source` reads the log; `past_source` reads `stored_events` first, for subscriptions that begin in the past.
//! `operator` answers the operator's commands. `traced_handler` makes the spans of deliveries. `event_pipeline` is the interface of `/pipeline`, whose events are recorded in Redis; `subscriptions` are those that
//! organizations make. See `docs/delivery.md`.

pub mod event_pipeline;
pub mod log_source;
pub mod operator;
pub mod past_source;
mod recent_ids;
pub mod stored_events;
pub mod subscriptions;
pub mod traced_handler;
