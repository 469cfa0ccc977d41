//! Mutates inputs.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Longest input that is made, in bytes.
const BYTES_MAX: usize = 4 << 10;
/// Numbers at which things change.
const NUMBERS: [u64; 14] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0xffff, 1 << 31, u32::MAX as u64, 1 << 53, 1 << 63, u64::MAX];
/// Pieces that mean something to one decoder or another.
const WORDS: [&str; 24] = [
    "{", "}", "[", "]", "\"", ":", ",", "\\u0000", "\\ud800", "null", "1e999", "-", "+", ".", "Z", "T", "%00", "%ff",
    "&", "=", "from", "window", "TALLYSEG", "\u{e9}",
];

/// A source of inputs that depends on its seed only.
pub(super) struct Mutator {
    random: StdRng,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    pub(super) fn new(seed: u64, corpus: Vec<Vec<u8>>) -> Self {
        Self { random: StdRng::seed_from_u64(seed), corpus }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.random_range(0..bound.max(1))
    }

    /// The next input: a few changes to one of the corpus, which it sometimes
    /// joins so that changes add up.
    pub(super) fn next(&mut self) -> Vec<u8> {
        let at = self.below(self.corpus.len());
        let mut input = self.corpus[at].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut input);
        }
        input.truncate(BYTES_MAX);
        if self.below(50) == 0 {
            // The corpus stays small: a newcomer replaces another one.
            if self.corpus.len() < 200 {
                self.corpus.push(input.clone());
            } else {
                let at = self.below(self.corpus.len());
                self.corpus[at] = input.clone();
            }
        }
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = (at + 1 + self.below(16)).min(input.len());
        match self.below(9) {
            0 | 1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = self.random.random(),
            3 => drop(input.drain(at..end.max(at))),
            4 => {
                let piece = input[at..end.max(at)].to_vec();
                let to = self.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            5 => {
                let bytes = NUMBERS[self.below(NUMBERS.len())].to_le_bytes();
                let bytes = &bytes[..1 << self.below(4)];
                let end = (at + bytes.len()).min(input.len());
                input.splice(at..end, bytes.iter().copied());
            }
            6 => {
                let word = WORDS[self.below(WORDS.len())];
                input.splice(at..at, word.bytes());
            }
            7 => {
                let other = self.below(self.corpus.len());
                let from = self.below(self.corpus[other].len() + 1);
                input.truncate(at);
                input.extend_from_slice(&self.corpus[other][from..]);
            }
            _ => input.truncate(at),
        }
    }
}
