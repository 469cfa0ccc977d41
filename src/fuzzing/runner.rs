//! Runs every target on its seeds, on earlier findings, and on mutations of both.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a target says so by panicking")]

use std::path::Path;
use std::time::{Duration, Instant};

use super::mutation::Mutator;
use super::{TARGETS, target};

/// Longest one input may take. (Each takes far less than a millisecond; the
/// machine may be busy.)
const INPUT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Names the seed of a run to repeat.
const SEED: &str = "TALLYHOUSE_FUZZ_SEED";

/// The committed inputs of a target: a corpus, and what once was a finding.
fn committed(name: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut inputs = Vec::new();
    for folder in ["corpus", "findings"] {
        let Ok(files) = std::fs::read_dir(fuzz.join(folder).join(name)) else { continue };
        let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        inputs.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    }
    inputs
}

fn check(name: &str, input: &[u8]) {
    let begun = Instant::now();
    let done = std::panic::catch_unwind(|| target(name).check(input));
    let took = begun.elapsed();
    assert!(done.is_ok() && took < INPUT_WAIT_MAX, "{name} took {took:?} for {:?}", input.escape_ascii().to_string());
}

/// The input's opening, then one piece again and again, then its end.
fn filled(opening: &str, piece: &str, end: &str, bytes: usize) -> Vec<u8> {
    let pieces = (bytes - opening.len() - end.len()) / piece.len();
    [opening, &piece.repeat(pieces), end].concat().into_bytes()
}

#[test]
fn the_costliest_inputs_keep_the_bound_on_memory_when_they_are_large() {
    let quarter_megabyte = 256 << 10;
    let costs = [
        ("rest_body", filled("{\"metadata\":{\"a\":[", "{\"\":0},", "0]}}", quarter_megabyte)),
        ("rest_body", filled("{\"metadata\":{\"a\":[", "[],", "0]}}", quarter_megabyte)),
        ("properties", filled("{\"a\":[", "{\"\":0},", "0]}", quarter_megabyte)),
        ("rest_query", filled("", "type=&", "limit=1", 8 << 10)),
        ("grpc_questions", filled("\u{4}", "\u{22}\0", "", quarter_megabyte)),
        ("segment", vec![0xff; quarter_megabyte]),
        ("rows", vec![0; quarter_megabyte]),
    ];
    for (name, input) in costs {
        let peak = super::allocation::peak_of(|| (target(name).run)(&input));
        println!("{name}: {peak} bytes of memory for {} bytes of input, {} each", input.len(), peak / input.len());
        let bound = super::BYTES_FREE + target(name).bytes_per_byte * input.len();
        assert!(peak <= bound, "{name}: {peak} bytes of memory for {} bytes of input", input.len());
    }
}

fn run(name: &str, inputs: usize) {
    let seed = std::env::var(SEED).map_or_else(|_| rand::random(), |seed| seed.parse().expect(SEED));
    println!("{name}: {SEED}={seed}");
    let mut corpus = (target(name).seeds)();
    corpus.extend(committed(name));
    corpus.push(Vec::new());
    corpus.iter().for_each(|input| check(name, input));
    let mut mutator = Mutator::new(seed, corpus);
    for _ in 0..inputs {
        check(name, &mutator.next());
    }
}

/// One test for each target, and a number of inputs.
macro_rules! runs {
    ($( $name:ident: $inputs:literal; )+) => {
        $( #[test] fn $name() { run(stringify!($name), $inputs); } )+

        #[test]
        fn every_target_is_run() {
            let run = [$( stringify!($name) ),+];
            assert_eq!(TARGETS.map(|target| target.name), run);
        }
    };
}

runs! {
    grpc_events: 60_000;
    grpc_questions: 60_000;
    page_token: 60_000;
    properties: 60_000;
    recovery: 1_500;
    rest_body: 60_000;
    rest_query: 60_000;
    rows: 90_000;
    segment: 60_000;
    times: 90_000;
}
