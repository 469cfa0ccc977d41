//! Fuzz targets for every decoder of untrusted input.
//!
//! A target takes any bytes and panics if a property is violated. `cargo test` runs the targets on mutated
//! seeds, and libFuzzer runs them with `make fuzz` (see `docs/fuzzing.md`). Not part of any released
//! binary.

mod allocation;
#[cfg(test)]
mod mutation;
#[cfg(test)]
mod runner;

pub use allocation::Counting;

use crate::{ingest, log, transport};

/// One decoder, and what must hold for it.
pub struct Target {
    /// Its name: the folder of its corpus, and of its binary in `fuzz/`.
    pub name: &'static str,
    /// Panics when something that must hold does not.
    run: fn(&[u8]),
    /// Inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What it may hold of memory for each byte of the input. (A decoded event
    /// takes 200 bytes, and its shortest encoding two; the shortest JSON object
    /// takes two, and 600 with a key.)
    bytes_per_byte: usize,
}

macro_rules! target {
    ($name:literal, $module:path, $bytes_per_byte:literal) => {{
        use $module as it;
        Target { name: $name, run: it::run, seeds: it::seeds, bytes_per_byte: $bytes_per_byte }
    }};
}

/// What any input may cost of memory.
const BYTES_FREE: usize = 1 << 20;

/// Every target.
pub const TARGETS: [Target; 10] = [
    target!("grpc_events", transport::fuzzing::events, 1_500),
    target!("grpc_questions", transport::fuzzing::questions, 200),
    target!("page_token", transport::fuzzing::page_token, 200),
    target!("properties", transport::fuzzing::properties, 500),
    target!("recovery", log::fuzzing::recovery, 50),
    target!("rest_body", transport::fuzzing::body, 500),
    target!("rest_query", transport::fuzzing::query, 300),
    target!("rows", ingest::fuzzing::rows, 50),
    target!("segment", log::fuzzing::segment, 50),
    target!("times", transport::fuzzing::times, 100),
];

impl Target {
    /// Runs it on an input.
    ///
    /// # Panics
    /// When something that must hold does not, the bound on memory included.
    pub fn check(&self, input: &[u8]) {
        let peak = allocation::peak_of(|| (self.run)(input));
        let bound = BYTES_FREE + self.bytes_per_byte * input.len();
        assert!(peak <= bound, "{}: {peak} bytes of memory for {} bytes of input", self.name, input.len());
    }
}

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> &'static Target {
    let found = TARGETS.iter().find(|target| target.name == name);
    found.unwrap_or_else(|| unreachable!("no target {name}"))
}
