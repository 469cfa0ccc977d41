//! The id ledger: the ids of all events that were taken, on disk.
//!
//! It answers one question: has this id been taken before, and with which payload? An entry is 16
//! bytes on disk and about 10 bits in memory, whatever the event's time.
//!
//! ```text
//! ids in order ──► run (new) ──► merged runs ──► … ──► dropped, when their events have expired
//!                    │
//!                    └── manifest: these runs count, and cover these segments of the log
//! ```
//!
//! - A **run** is an immutable file of entries in ascending order, with a filter in memory that says
//!   of nearly every id that is not there that it is not. Ids with a time in them (UUIDs of version
//!   7, ULIDs) are first compared with the times of each run.
//! - Runs of similar size are **merged** in the background, so that few are asked.
//! - The **manifest** is replaced in one durable step. Whatever happens between two steps, the runs
//!   it names are whole and synced.
//!
//! The ledger knows fingerprints, not ids; it keeps no secret and reads no clock. Its callers hold the
//! newest ids in memory, and hand them over with [`Ledger::add_run`].
//!
//! Every page and every tail has a checksum. What is damaged or missing is an error that says so
//! ([`LedgerError::Damaged`]), never a wrong answer.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a failed test is the point"))]

mod candidates;
mod codec;
mod entry;
mod error;
#[cfg(test)]
mod fault_tests;
mod filter;
#[cfg(test)]
mod horizon_tests;
mod id_time;
mod ledger;
mod maintenance;
mod manifest;
mod merge;
#[cfg(test)]
mod model;
mod noted_ids;
mod page;
#[cfg(test)]
mod protocol;
mod run;
mod run_writer;
mod segment_note;

pub use candidates::{Candidates, Read};
pub use entry::{Asked, Day, Entry, Fingerprint};
pub use error::LedgerError;
pub use id_time::{IdTimes, time_in_id};
pub use ledger::{Ledger, LedgerSettings, LedgerStatus, NewRun, Repair};
pub use run::KeyCheck;
pub use segment_note::SegmentNote;
