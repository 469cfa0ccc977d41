//! Ingest: every event id is taken once, and what was acknowledged stays.
//!
//! [`pipeline`] is the path of a batch: validate, deduplicate against the
//! [`index`], append to the [`log`], acknowledge. The [`forwarder`] carries
//! sealed segments to the [`store`]. What became of the events leaves through
//! [`outcome`]. The [`insert_gate`] tells the audit what is on its way.

mod batch;
pub mod clock;
mod fate;
pub mod fingerprint;
pub mod forwarder;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
pub mod index;
pub mod insert_gate;
pub mod ledger_keeper;
pub mod log;
pub mod lost_ids;
pub mod outcome;
pub mod pipeline;
pub mod rebuild;
pub mod row;
pub mod segment_hours;
pub mod segment_ids;
pub mod store;
pub mod stored;
mod stored_rows;
mod stored_wait;
pub mod terms;
mod trusted_time;
pub mod warm_up;
