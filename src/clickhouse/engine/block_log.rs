//! Corrects ClickHouse's record of inserted blocks before it starts.
//!
//! A table that deduplicates inserts keeps a log of its blocks
//! (`deduplication_logs/deduplication_log_N.txt`): a line for each part that an insert created, with the
//! insert's token. ClickHouse (26.7) writes the line *before* it gives the part its final name. If it is
//! killed in between, it starts with a token that it considers known and without the rows. It would
//! ignore the repeated insert, and the rows would never be counted. This module compares the last lines
//! with the existing parts. For each missing part, it appends the line by which ClickHouse itself withdraws
//! a token.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::tables::{names, table_dirs};

/// Lines of a log that are looked at, from its end: what was being added when
/// ClickHouse was killed is among the last. Older parts may be missing for a good
/// reason, such as their age. (What failed before that, with ClickHouse alive, is
/// left to the settling of repeated inserts.)
const LINES_MAX: usize = 100;

/// What a line says of a block: that it was added, or taken back.
const ADDED: &str = "1";
const TAKEN_BACK: &str = "2";

/// Corrects every table below ClickHouse's data directory, which must not be in use.
pub(super) fn mend(data_dir: &Path) -> io::Result<()> {
    table_dirs(data_dir)?.iter().try_for_each(|table_dir| mend_table(table_dir))
}

fn mend_table(table_dir: &Path) -> io::Result<()> {
    let Some(path) = last_log(&table_dir.join("deduplication_logs"))? else { return Ok(()) };
    let log = std::fs::read(&path)?;
    let (whole, cut) = log.split_at(log.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
    let lines = String::from_utf8_lossy(whole);
    let names = names(table_dir)?;
    let parts: Vec<Part> = names.iter().filter_map(|name| Part::parse(name)).collect();
    let lost = lost_blocks(&lines, &parts);
    if lost.is_empty() && cut.is_empty() {
        return Ok(());
    }
    let (table, blocks) = (table_dir.display(), lost.len());
    tracing::warn!(%table, blocks, "ClickHouse recorded blocks that it does not have; withdrew their tokens");
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.set_len(whole.len() as u64)?; // A line that was cut short stands for nothing.
    for (part, block) in lost {
        file.write_all(format!("{TAKEN_BACK}\t{part}\t{block}\n").as_bytes())?;
    }
    file.sync_all()
}

/// The blocks, with the names of their parts, that the last lines say were
/// added, and whose parts are not there.
fn lost_blocks<'a>(lines: &'a str, parts: &[Part]) -> Vec<(&'a str, &'a str)> {
    let mut taken_back = Vec::new();
    let mut lost = Vec::new();
    for line in lines.lines().rev().take(LINES_MAX) {
        let mut fields = line.splitn(3, '\t');
        let (Some(operation), Some(name), Some(block)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if operation == TAKEN_BACK {
            taken_back.push(block);
        } else if operation == ADDED && !taken_back.contains(&block) {
            let is_there = |part: Part<'_>| parts.iter().any(|other| other.covers(&part));
            if Part::parse(name).is_some_and(|part| !is_there(part)) {
                lost.push((name, block));
            }
        }
    }
    lost
}

/// A part's name: its partition, and which blocks are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part<'a> {
    partition: &'a str,
    first: u64,
    last: u64,
}

impl<'a> Part<'a> {
    /// Of `PARTITION_FIRST_LAST_LEVEL`, with the number of a mutation behind or
    /// without; nothing else, such as the directory of a part that is being written.
    fn parse(name: &'a str) -> Option<Self> {
        let mut fields = name.split('_');
        let (partition, first, last) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let numbers = fields.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
        matches!(numbers.len(), 1 | 2).then_some(Self { partition, first, last })
    }

    /// Whether everything of the other is in this one: it is the same, or was
    /// merged into this.
    fn covers(&self, other: &Part<'_>) -> bool {
        self.partition == other.partition && self.first <= other.first && other.last <= self.last
    }
}

/// The newest file of a log that has a line.
fn last_log(dir: &Path) -> io::Result<Option<PathBuf>> {
    let number = |name: &str| name.strip_prefix("deduplication_log_")?.strip_suffix(".txt")?.parse::<u64>().ok();
    let mut logs: Vec<(u64, PathBuf)> =
        names(dir)?.iter().filter_map(|name| Some((number(name)?, dir.join(name)))).collect();
    logs.sort_unstable_by(|a, b| b.cmp(a));
    for (_, path) in logs {
        if path.metadata()?.len() > 0 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table with these parts and this log; the log as it is afterwards.
    fn mended(parts: &[&str], log: &str) -> String {
        let data = tempfile::tempdir().unwrap();
        let table = data.path().join("store/628/628c36c4");
        for part in parts {
            std::fs::create_dir_all(table.join(part)).unwrap();
        }
        let logs = table.join("deduplication_logs");
        std::fs::create_dir_all(&logs).unwrap();
        let path = logs.join("deduplication_log_2.txt");
        std::fs::write(logs.join("deduplication_log_1.txt"), "1\t202601_1_1_0\told\n").unwrap();
        std::fs::write(&path, log).unwrap();
        std::fs::write(logs.join("deduplication_log_10.txt"), "").unwrap(); // Begun, and nothing in it yet.
        mend(data.path()).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_block_whose_part_was_not_finished_is_taken_back() {
        let log = "1\t202612_64_64_0\ta\n1\t202611_65_65_0\tb\n";
        let parts = ["202612_64_64_0", "tmp_insert_202611_65_65_0"];
        assert_eq!(mended(&parts, log), format!("{log}2\t202611_65_65_0\tb\n"));
    }

    #[test]
    fn a_block_that_is_there_by_itself_or_merged_is_left_alone() {
        let log = "1\t202611_1_1_0\ta\n1\t202611_2_2_0\tb\n1\t202611_7_7_0\tc\n1\t20261121_9_9_0\td\n";
        assert_eq!(mended(&["202611_1_5_2", "202611_7_7_0_12", "20261121_9_9_0"], log), log);
    }

    #[test]
    fn a_part_of_another_partition_or_of_other_blocks_does_not_count() {
        let log = "1\t202611_5_5_0\ta\n";
        let parts = ["202612_5_5_0", "202611_6_9_1", "202611_1_4_1", "detached"];
        assert_eq!(mended(&parts, log), format!("{log}2\t202611_5_5_0\ta\n"));
    }

    #[test]
    fn a_block_that_was_taken_back_is_taken_back_once() {
        let log = "1\t202611_5_5_0\ta\n2\t202611_5_5_0\ta\n";
        assert_eq!(mended(&[], log), log);
        // It has come again since, and was broken off again.
        let again = format!("{log}1\t202611_6_6_0\ta\n");
        assert_eq!(mended(&[], &again), format!("{again}2\t202611_6_6_0\ta\n"));
    }

    #[test]
    fn a_line_that_was_cut_short_goes() {
        assert_eq!(mended(&["202611_5_5_0"], "1\t202611_5_5_0\ta\n1\t202611_6"), "1\t202611_5_5_0\ta\n");
        assert_eq!(mended(&[], "1\t2026"), "");
    }

    #[test]
    fn what_it_does_not_know_is_left_alone() {
        let log = "3\t202611_5_5_0\ta\n1\tall\tb\n\n1\t202611_5_x_0\tc\n";
        assert_eq!(mended(&[], log), log);
    }

    #[test]
    fn a_directory_without_tables_is_fine() {
        let data = tempfile::tempdir().unwrap();
        mend(data.path()).unwrap();
        std::fs::create_dir_all(data.path().join("store/628/628c36c4")).unwrap();
        std::fs::write(data.path().join("store/file"), "").unwrap();
        mend(data.path()).unwrap();
    }
}
