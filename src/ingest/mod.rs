//! Ingest: every event id is taken once, and what was acknowledged stays.
//!
//! [`pipeline`] is the path of a batch: validate, deduplicate against the
//! [`index`], append to the [log](crate::log), acknowledge. The [`forwarder`] carries
//! sealed segments to the [event store](crate::event_store). What became of the events leaves through
//! [`outcome`]. The [insert gate](crate::event_store::insert_gate) tells the audit what is on its way.

mod batch;
mod fate;
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
