//! The tables of the records of how events ended.
//!
//! Records are numbered as they are written. Those of one commit are one row, a *run*: the next event of each user waits for
//! the commit, and one row is less work than many. Whole runs are deleted, once there are enough younger records.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::StoreError;
use super::records::Commit;
use super::tables::{Bytes, decode, encode};
use crate::domain::{LaneKey, Settlement, SubscriptionId};

/// Runs: subscription and the number of the last record.
pub(super) const RUNS: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("settlements");
/// The number of each event's record: subscription and event id.
pub(super) const NUMBERS: TableDefinition<'_, (u64, &str), u64> = TableDefinition::new("settlement numbers");

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

/// Adds the records of a commit, and deletes what there are enough younger records of.
pub(super) fn write(transaction: &WriteTransaction, id: SubscriptionId, commit: &Commit) -> Result<(), StoreError> {
    if commit.settlements.is_empty() {
        return Ok(());
    }
    let (mut runs, mut numbers) = (transaction.open_table(RUNS)?, transaction.open_table(NUMBERS)?);
    let last = runs.range((id, 0)..=(id, u64::MAX))?.next_back().transpose()?.map_or(0, |(key, _)| key.value().1);
    let mut records: Vec<Option<&Settlement>> = Vec::with_capacity(commit.settlements.len());
    for (number, settlement) in (last + 1..).zip(&commit.settlements) {
        // One that was replayed has ended before.
        if let Some(before) = numbers.insert((id, settlement.event_id.as_str()), number)? {
            let of_commit = before.value().checked_sub(last + 1).and_then(|at| usize::try_from(at).ok());
            match of_commit.and_then(|at| records.get_mut(at)) {
                Some(record) => *record = None,
                None => forget(&mut runs, id, before.value())?,
            }
        }
        records.push(Some(settlement));
    }
    let last = last + records.len() as u64;
    runs.insert((id, last), encode(&records)?.as_slice())?;
    let keep_from = last.saturating_sub(commit.settlements_max) + 1;
    delete_before(&mut runs, &mut numbers, (id, keep_from), 2 * commit.settlements.len() + DELETED_MIN)
}

/// Deletes runs whose records all have lower numbers, at most so many records and those of one run.
fn delete_before(
    runs: &mut Table<'_, (u64, u64), Bytes>,
    numbers: &mut Table<'_, (u64, &str), u64>,
    (id, number): (SubscriptionId, u64),
    records_max: usize,
) -> Result<(), StoreError> {
    let (mut old, mut deleted) = (Vec::new(), 0);
    for entry in runs.range((id, 0)..(id, number))? {
        if deleted >= records_max {
            break;
        }
        let (last, row) = entry?;
        let last = last.value().1;
        let records = decode_run(last, row.value())?;
        deleted += records.len();
        old.push((last, records));
    }
    for (last, records) in old {
        runs.remove((id, last))?;
        for record in records.into_iter().filter_map(|(_, record)| record) {
            numbers.remove((id, record.event_id.as_str()))?;
        }
    }
    Ok(())
}

/// Empties the field of one record.
fn forget(runs: &mut Table<'_, (u64, u64), Bytes>, id: SubscriptionId, number: u64) -> Result<(), StoreError> {
    let found = runs.range((id, number)..(id + 1, 0))?.next().transpose()?;
    let Some((last, row)) = found.map(|(key, row)| (key.value().1, row.value().to_owned())) else { return Ok(()) };
    let mut records = decode_run(last, &row)?;
    records.iter_mut().filter(|(of, _)| *of == number).for_each(|(_, record)| *record = None);
    runs.insert((id, last), encode_run(&records)?.as_slice())?;
    Ok(())
}

/// Takes a user out of the records: they are of nobody's events then.
pub(super) fn forget_user(transaction: &WriteTransaction, id: SubscriptionId, key: &LaneKey) -> Result<(), StoreError> {
    let mut runs = transaction.open_table(RUNS)?;
    let mut changed = Vec::new();
    for entry in runs.range((id, 0)..(id + 1, 0))? {
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
    }
    for (last, row) in changed {
        runs.insert((id, last), row.as_slice())?;
    }
    Ok(())
}

/// Deletes all of a subscription.
pub(super) fn delete(transaction: &WriteTransaction, id: SubscriptionId) -> Result<(), StoreError> {
    transaction.open_table(RUNS)?.retain_in((id, 0)..(id + 1, 0), |_, _| false)?;
    transaction.open_table(NUMBERS)?.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
    Ok(())
}

/// The newest record of an event.
pub(super) fn of_event(
    database: &Database,
    id: SubscriptionId,
    event_id: &str,
) -> Result<Option<Settlement>, StoreError> {
    let transaction = database.begin_read()?;
    let number = transaction.open_table(NUMBERS)?.get((id, event_id))?.map(|number| number.value());
    let Some(number) = number else { return Ok(None) };
    let runs = transaction.open_table(RUNS)?;
    let Some((last, row)) = runs.range((id, number)..(id + 1, 0))?.next().transpose()? else { return Ok(None) };
    let records = decode_run(last.value().1, row.value())?;
    Ok(records.into_iter().find(|(of, _)| *of == number).and_then(|(_, record)| record))
}

/// How many were written in all.
pub(super) fn count(database: &Database, id: SubscriptionId) -> Result<u64, StoreError> {
    let runs = database.begin_read()?.open_table(RUNS)?;
    let last = runs.range((id, 0)..(id + 1, 0))?.next_back().transpose()?;
    Ok(last.map_or(0, |(key, _)| key.value().1))
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
