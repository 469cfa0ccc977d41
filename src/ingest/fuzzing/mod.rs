//! Targets of fuzzing: rows as they are read back.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod rows;
