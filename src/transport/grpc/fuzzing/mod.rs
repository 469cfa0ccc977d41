//! Targets of fuzzing: what comes over gRPC.

pub(crate) mod events;
pub(crate) mod questions;
