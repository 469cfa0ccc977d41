//! Fuzz targets for input over gRPC.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

pub(crate) mod events;
pub(crate) mod questions;
