//! Delivery: each user's events, once and in order, to whoever handles them.
//!
//! A *subscription* says which accepted events a *handler* gets, and how. Its *engine* reads them from a *source*, the
//! durable log of accepted events, and gives each to the handler:
//!
//! 1. The **source** ([`source::EventSource`]) gives events with their positions, in the order of arrival.
//! 2. The **sequencer** puts each into the lane of its user. A lane hands out one event at a time, by `seq` from 1 on;
//!    what came too early waits.
//! 3. The **handler** ([`handler::Handler`]) handles the event, or fails. A failed event is tried again, then it becomes a
//!    dead letter, and the lane goes on with a gap that every later delivery names.
//! 4. The **store** ([`store::DeliveryStore`]) records what has happened: one transaction for many events. Only then, the
//!    next event of the user is handed out, unless the handler records its effects itself.
//!
//! After a crash, the engine reads the source again from where the store says, leaves out what is recorded, and goes on.
//! The crate knows neither the service's log nor ClickHouse: the service gives it a source.

pub mod domain;
pub mod engine;
pub mod handler;
pub mod rate_limit;
pub mod redis;
pub mod source;
pub mod store;
