//! Deliveries: hands accepted events on, each user's once and in order. The engine is the crate `tallyhouse-delivery`; this
//! module gives it the service's log to read, and is the application behind its interfaces.
//!
//! `log_source` reads the log; `past_source` reads `stored_events` first, for subscriptions that begin in the past.
//! `subscriptions` are those that organizations make, and `event_pipeline` is the interface of `/pipeline`, whose events are
//! recorded in Redis. `traced_handler` makes the spans of deliveries, and `operator` answers the commands `backup` and
//! `erase`. See `docs/delivery.md`.

pub mod event_pipeline;
pub mod log_source;
pub mod operator;
pub mod past_source;
mod recent_ids;
pub mod stored_events;
pub mod subscriptions;
pub mod traced_handler;
