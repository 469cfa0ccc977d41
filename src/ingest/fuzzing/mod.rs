//! Fuzzing targets of ingest: the decoding of rows.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod rows;
