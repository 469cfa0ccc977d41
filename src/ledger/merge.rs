//! Selects and merges runs.
//!
//! Runs are in size classes, each four times the one before. When a class has four runs, they and all newer
//! ones become one run. An id is therefore rewritten once per class, and there are at most three runs in a
//! class: about six runs for 10⁸ ids.

use std::sync::Arc;

use tallyhouse_disk::Disk;

use super::entry::Entry;
use super::error::LedgerError;
use super::id_time::IdTimes;
use super::run::{Entries, KeyCheck, Run};
use super::run_writer::RunWriter;

/// Runs of one class that are merged, and how much larger the next class is.
const FANOUT: u64 = 4;
/// Most runs smaller than the first class.
const SMALL_RUNS_MAX: usize = 2;

/// How many of the newest runs, given by their sizes, are to be merged; none when nothing is.
/// `run_ids` is the size of the first class.
pub(crate) fn due(sizes_newest_first: &[u64], run_ids: u64) -> Option<usize> {
    let small = sizes_newest_first.iter().take_while(|size| **size < run_ids).count();
    if small > SMALL_RUNS_MAX {
        return Some(small);
    }
    let class = |size: u64| (size.max(1) / run_ids.max(1)).checked_ilog(FANOUT).map_or(0, |class| class + 1);
    let mut end = 0;
    while end < sizes_newest_first.len() {
        let highest = sizes_newest_first[..=end].iter().map(|size| class(*size)).max()?;
        end += sizes_newest_first[end..].iter().take_while(|size| class(**size) <= highest).count();
        let of_class = sizes_newest_first[..end].iter().filter(|size| class(**size) == highest).count();
        if highest > 0 && of_class as u64 >= FANOUT {
            return Some(end);
        }
    }
    None
}

/// Writes the entries of runs (newest first) that `keep` says yes to into one. It is asked in the order of the ids. Of
/// entries with the same id, that of the oldest run stays.
///
/// # Errors
/// The disk's, `Damaged`, and those of `keep`. A file that was begun is removed, if it can be.
pub(crate) fn merge(
    disk: &Arc<dyn Disk>,
    dir: &std::path::Path,
    runs: &[Arc<Run>],
    keep: impl FnMut(&Entry) -> Result<bool, LedgerError>,
    key_check: KeyCheck,
) -> Result<Run, LedgerError> {
    let expected = runs.iter().map(|run| run.tail.entries).sum();
    let mut writer = RunWriter::create(disk, dir, expected, key_check)?;
    copy(runs, keep, &mut writer)?;
    let mut id_times = IdTimes::default();
    runs.iter().for_each(|run| id_times.add_all(&run.tail.id_times));
    writer.finish(dir, id_times, runs.iter().any(|run| run.tail.has_untimed))
}

fn copy(
    runs: &[Arc<Run>],
    mut keep: impl FnMut(&Entry) -> Result<bool, LedgerError>,
    to: &mut RunWriter,
) -> Result<(), LedgerError> {
    // Oldest first: of equal ids, the first is taken.
    let mut sources: Vec<Source<'_>> = Vec::with_capacity(runs.len());
    for run in runs.iter().rev() {
        let mut entries = run.entries();
        if let Some(next) = entries.next().transpose()? {
            sources.push(Source { next, entries });
        }
    }
    while let Some(lowest) = lowest(&sources) {
        let entry = sources[lowest].next;
        if keep(&entry)? {
            to.push(entry)?;
        }
        match sources[lowest].entries.next().transpose()? {
            Some(next) => sources[lowest].next = next,
            // In order, as the order says which is oldest.
            None => drop(sources.remove(lowest)),
        }
    }
    Ok(())
}

struct Source<'a> {
    next: Entry,
    entries: Entries<'a>,
}

fn lowest(sources: &[Source<'_>]) -> Option<usize> {
    let ids = sources.iter().map(|source| source.next.id).enumerate();
    // The first of equal ones.
    ids.min_by_key(|(position, id)| (*id, *position)).map(|(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes after so many runs have been added and merged, and how often an id was rewritten on
    /// average.
    fn after(run_sizes: impl Iterator<Item = u64>) -> (Vec<u64>, usize, f64) {
        let (mut sizes, mut rewritten, mut total, mut runs_max) = (Vec::<u64>::new(), 0, 0, 0);
        for size in run_sizes {
            sizes.insert(0, size);
            total += size;
            while let Some(count) = due(&sizes, 1_000) {
                let merged = sizes.drain(..count).sum();
                rewritten += merged;
                sizes.insert(0, merged);
            }
            runs_max = runs_max.max(sizes.len());
        }
        (sizes, runs_max, rewritten as f64 / total as f64)
    }

    #[test]
    fn there_are_few_runs_and_an_id_is_rewritten_a_few_times() {
        // As 200 million ids in runs of two million.
        let (_, runs_max, rewritten) = after((0..100).map(|_| 1_000));
        assert!(runs_max <= 9, "{runs_max} runs");
        assert!(rewritten <= 3.0, "{rewritten}");
    }

    #[test]
    fn small_runs_do_not_pile_up() {
        let (sizes, runs_max, _) = after((0..10_000).map(|n| n % 7 + 1));
        assert!(runs_max <= 9, "{runs_max} runs: {sizes:?}");
    }

    #[test]
    fn nothing_is_merged_that_would_be_merged_again_at_once() {
        assert_eq!(due(&[], 1_000), None);
        assert_eq!(due(&[1_000], 1_000), None);
        assert_eq!(due(&[1_000, 1_000, 1_000, 4_000], 1_000), None);
        assert_eq!(due(&[1_000, 1_000, 1_000, 1_000, 4_000], 1_000), Some(4));
        assert_eq!(due(&[10, 1_000, 1_000, 1_000, 1_000], 1_000), Some(5));
        assert_eq!(due(&[10, 20, 30, 50_000], 1_000), Some(3));
    }
}
