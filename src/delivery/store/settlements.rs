//! The tables of the records of how events ended.
//!
//! Records are numbered as they are written. Those of one commit are one row, a *run*: the next event of each user waits for
//! the commit, and one row is less work than many. Whole runs are deleted, once there are enough younger records.
//!
//! Event ids come in any order. Were they one index, each of a commit would change another page of the file. So they are
//! indexed by *chapters* of a few thousand records: a commit changes the pages of one or two chapters, and who looks for
//! an id looks into one chapter after the other, the youngest first.

use std::collections::BTreeSet;

use redb::{Database, ReadableDatabase as _, ReadableTable, Table, TableDefinition, WriteTransaction};

use super::StoreError;
use super::records::Commit;
use super::tables::{Bytes, decode, encode};
use crate::domain::{LaneKey, Settlement, SubscriptionId};

/// Runs: subscription and the number of the last record.
pub(super) const RUNS: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("settlements");
/// The numbers of the records: subscription, chapter and event id.
pub(super) const CHAPTERS: TableDefinition<'_, (u64, u64, &str), u64> = TableDefinition::new("settlement chapters");
/// The same by subscription and event id, as former versions wrote it.
pub(super) const FORMER_NUMBERS: TableDefinition<'_, (u64, &str), u64> = TableDefinition::new("settlement numbers");

/// Records whose numbers are in one chapter.
const CHAPTER_RECORDS: u64 = 8_192;
/// Most old chapters that a commit deletes.
const CHAPTERS_DELETED_MAX: usize = 2;
/// Runs of a user that is erased that are in memory at a time.
pub(super) const RUNS_CHANGED_MAX: usize = 64;
/// When the bound was lowered, each commit deletes so many old records and twice as many as it adds.
const DELETED_MIN: usize = 1_000;

/// The records of a run, each with its number; none where the event has a newer one.
fn decode_run(last: u64, row: &[u8]) -> Result<Vec<(u64, Option<Settlement>)>, StoreError> {
    let records = match row.first() {
        // A row of one record, as former versions wrote them.
        Some(b'{') => vec![Some(decode(row)?)],
        _ => decode::<Vec<Option<Settlement>>>(row)?,
    };
    let first = (last + 1).saturating_sub(records.len() as u64);
    Ok((first..).zip(records).collect())
}

fn encode_run(records: &[(u64, Option<Settlement>)]) -> Result<Vec<u8>, StoreError> {
    encode(&records.iter().map(|(_, record)| record.as_ref()).collect::<Vec<_>>())
}

/// Makes the tables. What a former version wrote is taken over.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(RUNS)?;
    let mut chapters = transaction.open_table(CHAPTERS)?;
    for entry in transaction.open_table(FORMER_NUMBERS)?.iter()? {
        let (key, number) = entry?;
        let ((id, event_id), number) = (key.value(), number.value());
        chapters.insert((id, chapter_of(number), event_id), number)?;
    }
    transaction.delete_table(FORMER_NUMBERS)?;
    Ok(())
}

const fn chapter_of(number: u64) -> u64 {
    number / CHAPTER_RECORDS
}

/// Adds the records of a commit, and deletes what there are enough younger records of.
pub(super) fn write(transaction: &WriteTransaction, id: SubscriptionId, commit: &Commit) -> Result<(), StoreError> {
    if commit.settlements.is_empty() {
        return Ok(());
    }
    let (mut runs, mut chapters) = (transaction.open_table(RUNS)?, transaction.open_table(CHAPTERS)?);
    let mut again = BTreeSet::new();
    for event_id in &commit.settled_again {
        again.extend(number_of(&chapters, id, event_id)?);
    }
    forget(&mut runs, id, again)?;
    let before = last_number(&runs, id)?;
    for (number, settlement) in (before + 1..).zip(commit.settlements.iter()) {
        if let Some(settlement) = settlement {
            chapters.insert((id, chapter_of(number), settlement.event_id.as_str()), number)?;
        }
    }
    let last = before + commit.settlements.len() as u64;
    runs.insert((id, last), encode(&commit.settlements)?.as_slice())?;
    let keep_from = last.saturating_sub(commit.settlements_max) + 1;
    delete_runs_before(&mut runs, (id, keep_from), 2 * commit.settlements.len() + DELETED_MIN)?;
    delete_chapters_before(&mut chapters, (id, keep_from))
}

/// The number of the newest record of an event. The record may be gone.
fn number_of(
    chapters: &impl ReadableTable<(u64, u64, &'static str), u64>,
    id: SubscriptionId,
    event_id: &str,
) -> Result<Option<u64>, StoreError> {
    let mut all = chapters.range((id, 0, "")..(id + 1, 0, ""))?;
    let first = all.next().transpose()?.map(|(key, _)| key.value().1);
    let last = all.next_back().transpose()?.map(|(key, _)| key.value().1).or(first);
    let (Some(first), Some(last)) = (first, last) else { return Ok(None) };
    for chapter in (first..=last).rev() {
        if let Some(number) = chapters.get((id, chapter, event_id))? {
            return Ok(Some(number.value()));
        }
    }
    Ok(None)
}

/// The number of the last record; 0 when there is none.
fn last_number(runs: &impl ReadableTable<(u64, u64), Bytes>, id: SubscriptionId) -> Result<u64, StoreError> {
    let last = runs.range((id, 0)..(id + 1, 0))?.next_back().transpose()?;
    Ok(last.map_or(0, |(key, _)| key.value().1))
}

/// Deletes runs whose records all have lower numbers, at most so many records and those of one run.
fn delete_runs_before(
    runs: &mut Table<'_, (u64, u64), Bytes>,
    (id, number): (SubscriptionId, u64),
    records_max: usize,
) -> Result<(), StoreError> {
    let mut deleted = 0;
    let mut old = Vec::new();
    for entry in runs.range((id, 0)..(id, number))? {
        if deleted >= records_max {
            break;
        }
        let (last, row) = entry?;
        deleted += decode_run(last.value().1, row.value())?.len();
        old.push(last.value().1);
    }
    for last in old {
        runs.remove((id, last))?;
    }
    Ok(())
}

/// Deletes chapters of lower numbers only, the oldest first.
fn delete_chapters_before(
    chapters: &mut Table<'_, (u64, u64, &'static str), u64>,
    (id, number): (SubscriptionId, u64),
) -> Result<(), StoreError> {
    for _ in 0..CHAPTERS_DELETED_MAX {
        let oldest = chapters.range((id, 0, "")..(id, chapter_of(number), ""))?.next().transpose()?;
        let Some(oldest) = oldest.map(|(key, _)| key.value().1) else { return Ok(()) };
        chapters.retain_in((id, oldest, "")..(id, oldest + 1, ""), |_, _| false)?;
    }
    Ok(())
}

/// Empties the fields of some records. Writes each run once.
fn forget(
    runs: &mut Table<'_, (u64, u64), Bytes>,
    id: SubscriptionId,
    mut numbers: BTreeSet<u64>,
) -> Result<(), StoreError> {
    while let Some(number) = numbers.first().copied() {
        let found = runs.range((id, number)..(id + 1, 0))?.next().transpose()?;
        let Some((last, row)) = found.map(|(key, row)| (key.value().1, row.value().to_owned())) else { return Ok(()) };
        let later = numbers.split_off(&(last + 1));
        let mut records = decode_run(last, &row)?;
        let of_these = records.iter_mut().filter(|(of, _)| numbers.contains(of));
        of_these.for_each(|(_, record)| *record = None);
        runs.insert((id, last), encode_run(&records)?.as_slice())?;
        numbers = later;
    }
    Ok(())
}

/// Takes a user out of the records: they are of nobody's events then. Holds a few runs in memory at a time.
pub(super) fn forget_user(transaction: &WriteTransaction, id: SubscriptionId, key: &LaneKey) -> Result<(), StoreError> {
    let mut runs = transaction.open_table(RUNS)?;
    let mut from = 0;
    loop {
        let changed = runs_without(&runs, (id, from), key)?;
        let Some((last, _)) = changed.last() else { return Ok(()) };
        from = last + 1;
        for (last, row) in changed {
            runs.insert((id, last), row.as_slice())?;
        }
    }
}

/// The next runs with records of a user, without the user: at most so many. Each with the number of its last record.
fn runs_without(
    runs: &impl ReadableTable<(u64, u64), Bytes>,
    (id, from): (SubscriptionId, u64),
    key: &LaneKey,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut changed = Vec::new();
    for entry in runs.range((id, from)..(id + 1, 0))? {
        let (last, row) = entry?;
        let last = last.value().1;
        let mut records = decode_run(last, row.value())?;
        let of_user = records.iter_mut().filter_map(|(_, record)| record.as_mut());
        let mut of_user = of_user.filter(|record| record.user_id == key.as_str()).peekable();
        if of_user.peek().is_none() {
            continue;
        }
        of_user.for_each(|record| {
            record.user_id.clear();
            record.error.clear();
        });
        changed.push((last, encode_run(&records)?));
        if changed.len() >= RUNS_CHANGED_MAX {
            break;
        }
    }
    Ok(changed)
}

/// Deletes all of a subscription.
pub(super) fn delete(transaction: &WriteTransaction, id: SubscriptionId) -> Result<(), StoreError> {
    transaction.open_table(RUNS)?.retain_in((id, 0)..(id + 1, 0), |_, _| false)?;
    transaction.open_table(CHAPTERS)?.retain_in((id, 0, "")..(id + 1, 0, ""), |_, _| false)?;
    Ok(())
}

/// The newest record of an event.
pub(super) fn of_event(
    database: &Database,
    id: SubscriptionId,
    event_id: &str,
) -> Result<Option<Settlement>, StoreError> {
    let transaction = database.begin_read()?;
    let Some(number) = number_of(&transaction.open_table(CHAPTERS)?, id, event_id)? else { return Ok(None) };
    let runs = transaction.open_table(RUNS)?;
    let Some((last, row)) = runs.range((id, number)..(id + 1, 0))?.next().transpose()? else { return Ok(None) };
    let records = decode_run(last.value().1, row.value())?;
    Ok(records.into_iter().find(|(of, _)| *of == number).and_then(|(_, record)| record))
}

/// How many were written in all.
pub(super) fn count(database: &Database, id: SubscriptionId) -> Result<u64, StoreError> {
    last_number(&database.begin_read()?.open_table(RUNS)?, id)
}

/// Those from a number on, at most so many.
pub(super) fn list(
    database: &Database,
    id: SubscriptionId,
    from: u64,
    max: usize,
) -> Result<Vec<(u64, Settlement)>, StoreError> {
    let runs = database.begin_read()?.open_table(RUNS)?;
    let mut all = Vec::new();
    for entry in runs.range((id, from)..(id + 1, 0))? {
        let (last, row) = entry?;
        let records = decode_run(last.value().1, row.value())?.into_iter().filter(|(number, _)| *number >= from);
        all.extend(records.filter_map(|(number, record)| Some((number, record?))));
        if all.len() >= max {
            all.truncate(max);
            break;
        }
    }
    Ok(all)
}
