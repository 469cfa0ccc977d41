//! The port to what handles events. It has four implementations, which pass one test suite (`conformance`):
//!
//! - [`PullHandler`]: consumers that pull over a stream, with credits, leases and acknowledgements.
//! - [`WebhookHandler`]: requests by Standard Webhooks 1.0.
//! - [`RedisHandler`]: a handler in this process whose effects are recorded in Redis in one atomic step.
//! - [`TrialHandler`]: fails events whose properties say `fail: true`.

mod address;
#[cfg(test)]
mod conformance;
mod pull;
mod redis_handler;
mod trial;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use address::AddressPolicy;
pub use pull::{AckError, Acknowledgement, CREDITS_MAX, Consumer, Lease, PullHandler, PulledDelivery};
pub use redis_handler::{RedisHandler, RedisLoss, RestoreError, RestoreSummary, redis_handler_scripts};
pub use trial::{EventProcessor, TrialHandler, TrialProcessor};
pub use webhook::{WEBHOOK_SECRETS_MAX, WebhookError, WebhookHandler, WebhookSettings};

use crate::domain::{DeadLetter, Event, Gaps, Settlement};

/// An event, handed out.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub event: Arc<Event>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Whether the event is given up if this attempt fails.
    pub is_last_attempt: bool,
    /// Whether the event was a dead letter and is replayed.
    pub is_replay: bool,
    /// The missing seqs of its user.
    pub gaps: Arc<Gaps>,
    /// The trace that whoever handles it continues, as the header `traceparent`; empty when there is none.
    pub traceparent: String,
}

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The event was handled, at this time in milliseconds since 1970.
    Done {
        /// When.
        processed_at_ms: u64,
    },
    /// The handler failed.
    Failed {
        /// Why.
        error: String,
        /// How long it asks to wait at least.
        retry_after: Option<Duration>,
        /// When, in milliseconds since 1970.
        failed_at_ms: u64,
    },
    /// The event had ended before, which the handler has recorded: this is the record.
    Already(Settlement),
    /// It was not tried: an event of the same user before it has failed.
    NotAttempted,
    /// The handler could not be called. That is no attempt.
    Unavailable {
        /// Why.
        error: String,
    },
    /// The handler wants no more events: the subscription is to be paused. That is no attempt.
    Disabled {
        /// What it said.
        error: String,
    },
}

/// How a handler wants its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandlerShape {
    /// Most users in one call.
    pub users_max: usize,
    /// Most events of one user in one call.
    pub events_per_user_max: usize,
    /// Whether the handler records its effects itself and says [`Outcome::Already`] to what it has recorded. Then the
    /// next event of a user does not wait for the record in the store.
    pub records_effects: bool,
}

impl HandlerShape {
    /// One event at a time.
    pub const SINGLE: Self = Self { users_max: 1, events_per_user_max: 1, records_effects: false };
}

/// Whoever handles events.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// How it wants its events.
    fn shape(&self) -> HandlerShape {
        HandlerShape::SINGLE
    }

    /// Handles some events: for each of several users some in a row. The answer has the same shape. Behind an event
    /// that was not done, or that failed before ([`Outcome::Already`]), those of the same user must not be tried: their
    /// deliveries do not name the gap.
    ///
    /// It must end by itself: the time-out of the subscription is the handler's to keep.
    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>>;

    /// Gives back the deliveries that nobody has yet, as [`Outcome::NotAttempted`]: the subscription is paused, or its
    /// engine stops. Those that somebody has go on.
    fn recall(&self) {}

    /// Events become dead letters without having been tried. A handler that keeps records of its own records them, and
    /// returns the records of those that had ended before.
    ///
    /// # Errors
    /// When that is not possible now; it is tried again.
    async fn refuse(&self, letters: &[DeadLetter]) -> Result<Vec<Settlement>, String> {
        let _ = letters;
        Ok(Vec::new())
    }

    /// Dead letters are discarded. A handler that keeps records of its own notes it.
    ///
    /// # Errors
    /// When that is not possible now: the letters are not discarded then.
    async fn discard(&self, letters: &[DeadLetter]) -> Result<(), String> {
        let _ = letters;
        Ok(())
    }
}
