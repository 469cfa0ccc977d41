//! What is delivered, to whom, and with which result. Pure: no clock, no files, no network.

mod dead_letter;
mod event;
mod gaps;
mod status;
mod subscription;

pub use dead_letter::{DeadLetter, DeadLetterReason, LetterNumber};
pub use event::{Event, LaneKey, Position};
pub use gaps::Gaps;
pub use status::{EventState, EventStatus, FinalOutcome, OldestEvent, Settlement, SubscriptionStatus, UserStatus};
pub use subscription::{
    Backoff, EventFilter, GapPolicy, InvalidSubscription, Order, SubscriptionId, SubscriptionSettings,
};
