//! Fuzz targets for input from callers.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod page_token;
pub(crate) mod properties;
pub(crate) mod times;

pub(crate) use super::grpc::fuzzing::{events, questions};
pub(crate) use super::rest::fuzzing::{body, query};

use crate::config::Config;
use crate::domain::{EventLimits, Timestamp};
use crate::transport::Cursors;

/// The clock of all targets: 2026-02-10T21:10:00Z.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

/// The limits that are set by default.
pub(super) fn limits() -> EventLimits {
    Config::default().event_limits()
}

/// Cursors of a service.
pub(super) fn cursors() -> Cursors {
    Cursors::new(b"the key of the targets").expect("a key")
}
