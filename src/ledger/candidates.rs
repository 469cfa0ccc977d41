//! Ids that memory does not rule out, and what the disk says of them.

use std::sync::Arc;

use super::entry::{Day, Entry, Fingerprint};
use super::error::LedgerError;
use super::run::Run;

/// Ids that may be there, and where. One in 250 ids that are not there is among them, for each run.
pub struct Candidates {
    /// By run, newest first.
    pub(super) pages: Vec<CandidatePage>,
    pub(super) complete_from: Option<Day>,
}

pub(super) struct CandidatePage {
    pub(super) position: usize,
    pub(super) id: Fingerprint,
    pub(super) run: Arc<Run>,
}

impl Candidates {
    /// Whether an id of this day that is not found has not been taken.
    pub fn is_complete_from(&self, day: Day) -> bool {
        self.complete_from.is_some_and(|first| day >= first)
    }

    /// Whether the ids of all events from some day on are there.
    pub const fn is_complete(&self) -> bool {
        self.complete_from.is_some()
    }

    /// How many pages have to be read from the disk.
    pub const fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Reads those that are there. Blocks on the disk.
    pub fn read(&self) -> Read {
        let mut read = Read::default();
        for CandidatePage { position, id, run } in &self.pages {
            match run.get(*id) {
                Ok(entry) => read.found.extend(entry.map(|entry| (*position, entry))),
                Err(error) => {
                    read.unread.push(*position);
                    read.error = Some(error);
                }
            }
        }
        read
    }
}

/// What was read of [`Candidates`].
#[derive(Debug, Default)]
pub struct Read {
    /// The position of each id that is there among those that were asked for, and its entry. Should runs hold an id
    /// more than once, the entry that was taken first comes last.
    pub found: Vec<(usize, Entry)>,
    /// The positions of ids that may be in a page that could not be read.
    pub unread: Vec<usize>,
    /// Why not.
    pub error: Option<LedgerError>,
}
