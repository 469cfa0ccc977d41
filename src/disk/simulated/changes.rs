//! What has been changed and is not synced yet, and what a power failure leaves of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::SmallRng;

use super::Content;

/// What disks write as one, in bytes: old ones, and those of today.
const SECTOR_BYTES: [usize; 2] = [512, 4_096];

/// The names of a directory.
pub(super) type Names = BTreeMap<String, Arc<Content>>;

/// A change of the names in a directory.
#[derive(Clone)]
pub(super) enum NameChange {
    Put(String, Arc<Content>),
    Remove(String),
    Rename { from: String, to: String, content: Arc<Content> },
}

impl NameChange {
    pub(super) fn apply(self, names: &mut Names) {
        match self {
            Self::Put(name, content) => _ = names.insert(name, content),
            Self::Remove(name) => _ = names.remove(&name),
            Self::Rename { from, to, content } => {
                names.remove(&from);
                names.insert(to, content);
            }
        }
    }
}

/// A change of a file's bytes.
#[derive(Clone)]
pub(super) enum ByteChange {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl ByteChange {
    pub(super) fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes: written } => write(bytes, *offset, written),
            Self::SetLen(len) => bytes.resize(*len, 0),
        }
    }

    /// Of a write, any subset of the sectors it touches, and perhaps the length without the bytes. A change of length
    /// is whole or nothing.
    pub(super) fn apply_torn(&self, bytes: &mut Vec<u8>, random: &mut SmallRng) {
        let Self::Write { offset, bytes: written } = self else {
            if random.random_bool(0.5) {
                self.apply(bytes);
            }
            return;
        };
        let sector_bytes = SECTOR_BYTES[random.random_range(0..SECTOR_BYTES.len())];
        // Most losses are of all or nothing; the rest are torn.
        let share = [0.0, 1.0, 0.5, 0.9][random.random_range(0..4)];
        let mut at = 0;
        while at < written.len() {
            let to_boundary = sector_bytes - (offset + at) % sector_bytes;
            let end = written.len().min(at + to_boundary);
            if random.random_bool(share) {
                write(bytes, offset + at, &written[at..end]);
            }
            at = end;
        }
        let end = offset + written.len();
        if bytes.len() < end && random.random_bool(0.25) {
            bytes.resize(end, 0);
        }
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

/// Which of some changes a power failure leaves: none, all, those up to some point, or any.
#[derive(Clone, Copy)]
pub(super) enum Survivors {
    UpTo(usize),
    Any,
}

impl Survivors {
    pub(super) fn choose(changes: usize, random: &mut SmallRng) -> Self {
        match random.random_range(0..4) {
            0 => Self::UpTo(0),
            1 => Self::UpTo(changes),
            2 => Self::UpTo(random.random_range(0..=changes)),
            _ => Self::Any,
        }
    }

    pub(super) fn include(self, position: usize, random: &mut SmallRng) -> bool {
        match self {
            Self::UpTo(end) => position < end,
            Self::Any => random.random_bool(0.5),
        }
    }
}
