//! Ingest: counts every event id once, and keeps what was acknowledged.
//!
//! [`pipeline`] validates a batch, deduplicates it against the [`index`], appends it to the [log](crate::log) and
//! acknowledges it. The [`forwarder`] inserts sealed segments into the [event store](crate::event_store). The
//! [`ledger_keeper`] moves ids from memory to disk. Verdicts leave through [`outcome`]. The
//! [insert gate](crate::event_store::insert_gate) tells the audit which inserts are under way.

mod batch;
mod completion;
pub mod fingerprint;
pub mod forwarder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod index;
pub mod ledger_keeper;
pub mod lost_ids;
pub mod outcome;
pub mod pipeline;
pub mod rebuild;
pub mod row_reader;
pub mod segment_ids;
mod stored_rows;
mod stored_wait;
pub mod warm_up;
