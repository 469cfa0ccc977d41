//! The tables of the file, and their reading and writing.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::records::{Commit, Cursor, CutOver, LaneRecord, LetterChange, StoredEvent, SubscriptionRecord};
use super::{StoreError, Write, settlements};
use crate::domain::{DeadLetter, LaneKey, LetterNumber, Position, SubscriptionId};

pub(super) type Bytes = &'static [u8];

/// Subscriptions by their numbers.
const SUBSCRIPTIONS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("subscriptions");
/// Where each reads on.
const CURSORS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("cursors");
/// Where those that began in the past went over to the log.
const CUT_OVERS: TableDefinition<'_, u64, Bytes> = TableDefinition::new("cut overs");
/// Users: subscription and lane.
const LANES: TableDefinition<'_, (u64, &str), Bytes> = TableDefinition::new("lanes");
/// Events that have not ended: subscription, segment, row.
const EVENTS: TableDefinition<'_, (u64, u128, u64), Bytes> = TableDefinition::new("events");
/// Dead letters: subscription and number.
const LETTERS: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("letters");
/// How many dead letters there are, and the number of the next.
const LETTER_COUNTS: TableDefinition<'_, u64, (u64, u64)> = TableDefinition::new("letter counts");

pub(super) fn create(transaction: &WriteTransaction) -> Result<(), StoreError> {
    transaction.open_table(SUBSCRIPTIONS)?;
    transaction.open_table(CURSORS)?;
    transaction.open_table(CUT_OVERS)?;
    transaction.open_table(LANES)?;
    transaction.open_table(EVENTS)?;
    transaction.open_table(LETTERS)?;
    transaction.open_table(LETTER_COUNTS)?;
    settlements::create(transaction)
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Failed(error.to_string()))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Failed(format!("a record cannot be read: {error}")))
}

/// Writes all or nothing.
pub(super) fn write(database: &Database, writes: Vec<Write>) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    for write in writes {
        match write {
            Write::Commit(id, commit) => write_commit(&transaction, id, &commit)?,
            Write::PutSubscription(record) => {
                transaction.open_table(SUBSCRIPTIONS)?.insert(record.id, encode(&record)?.as_slice())?;
            }
            Write::PutCutOver(id, cut) => {
                transaction.open_table(CUT_OVERS)?.insert(id, encode(&cut)?.as_slice())?;
            }
            Write::DeleteSubscription(id) => delete(&transaction, id)?,
        }
    }
    transaction.commit()?;
    Ok(())
}

fn write_commit(transaction: &WriteTransaction, id: SubscriptionId, commit: &Commit) -> Result<(), StoreError> {
    transaction.open_table(CURSORS)?.insert(id, encode(&commit.cursor)?.as_slice())?;
    if let Some(record) = &commit.subscription {
        transaction.open_table(SUBSCRIPTIONS)?.insert(id, encode(record)?.as_slice())?;
    }
    for key in &commit.erased {
        erase(transaction, id, key)?;
    }
    let mut lanes = transaction.open_table(LANES)?;
    for (key, record) in &commit.lanes {
        if *record == LaneRecord::default() {
            lanes.remove((id, key.as_str()))?;
        } else {
            lanes.insert((id, key.as_str()), encode(record)?.as_slice())?;
        }
    }
    let mut events = transaction.open_table(EVENTS)?;
    for event in &commit.stored {
        let Position { segment, row } = event.position;
        events.insert((id, segment, row), encode(event)?.as_slice())?;
    }
    for Position { segment, row } in &commit.removed {
        events.remove((id, *segment, *row))?;
    }
    write_letters(transaction, id, &commit.letters)?;
    settlements::write(transaction, id, commit)
}

fn write_letters(
    transaction: &WriteTransaction,
    id: SubscriptionId,
    changes: &[LetterChange],
) -> Result<(), StoreError> {
    if changes.is_empty() {
        return Ok(());
    }
    let mut letters = transaction.open_table(LETTERS)?;
    let mut all_counts = transaction.open_table(LETTER_COUNTS)?;
    let (mut count, mut next) = all_counts.get(id)?.map_or((0, 1), |counts| counts.value());
    for change in changes {
        match change {
            LetterChange::Put(letter) => {
                count += u64::from(letters.insert((id, letter.number), encode(letter)?.as_slice())?.is_none());
                next = next.max(letter.number + 1);
            }
            LetterChange::Remove(number) => count -= u64::from(letters.remove((id, *number))?.is_some()),
        }
    }
    all_counts.insert(id, (count, next))?;
    Ok(())
}

/// Deletes a user's lane and events. Records of how events ended stay, as of events of nobody.
pub(super) fn erase(transaction: &WriteTransaction, id: SubscriptionId, key: &LaneKey) -> Result<(), StoreError> {
    transaction.open_table(LANES)?.remove((id, key.as_str()))?;
    let is_of_user = |event: &[u8]| decode::<StoredEvent>(event).is_ok_and(|stored| LaneKey::of(&stored.event) == *key);
    transaction.open_table(EVENTS)?.retain_in((id, 0, 0)..(id + 1, 0, 0), |_, event| !is_of_user(event))?;
    settlements::forget_user(transaction, id, key)
}

/// Deletes what there is of a user, dead letters included. Returns how many events that were.
pub(super) fn erase_user(database: &Database, id: SubscriptionId, user_id: &str) -> Result<u64, StoreError> {
    let key = LaneKey::of_user(user_id);
    let waiting = events(database, id)?.iter().filter(|stored| stored.event.user_id == user_id).count();
    let letters = letters_of(database, id, user_id, usize::MAX)?;
    let transaction = database.begin_write()?;
    erase(&transaction, id, &key)?;
    let removed: Vec<LetterChange> = letters.iter().map(|letter| LetterChange::Remove(letter.number)).collect();
    write_letters(&transaction, id, &removed)?;
    transaction.commit()?;
    Ok((waiting + letters.len()) as u64)
}

/// Copies one table into another file.
macro_rules! copy_tables {
    ($from:expr, $to:expr, $($table:expr),+ $(,)?) => {
        $({
            let (from, mut to) = ($from.open_table($table)?, $to.open_table($table)?);
            for entry in from.iter()? {
                let (key, value) = entry?;
                to.insert(key.value(), value.value())?;
            }
        })+
    };
}

/// Copies everything, as of one time, into an empty file.
pub(super) fn copy(from: &Database, to: &Database) -> Result<(), StoreError> {
    let (read, write) = (from.begin_read()?, to.begin_write()?);
    copy_tables!(
        read,
        write,
        SUBSCRIPTIONS,
        CURSORS,
        CUT_OVERS,
        LANES,
        EVENTS,
        LETTERS,
        LETTER_COUNTS,
        settlements::RUNS,
        settlements::CHAPTERS,
    );
    write.commit()?;
    Ok(())
}

fn delete(transaction: &WriteTransaction, id: SubscriptionId) -> Result<(), StoreError> {
    transaction.open_table(SUBSCRIPTIONS)?.remove(id)?;
    transaction.open_table(CURSORS)?.remove(id)?;
    transaction.open_table(CUT_OVERS)?.remove(id)?;
    transaction.open_table(LETTER_COUNTS)?.remove(id)?;
    transaction.open_table(LANES)?.retain_in((id, "")..(id + 1, ""), |_, _| false)?;
    transaction.open_table(EVENTS)?.retain_in((id, 0, 0)..(id + 1, 0, 0), |_, _| false)?;
    transaction.open_table(LETTERS)?.retain_in((id, 0)..(id + 1, 0), |_, _| false)?;
    settlements::delete(transaction, id)
}

pub(super) fn subscriptions(database: &Database) -> Result<Vec<SubscriptionRecord>, StoreError> {
    let table = database.begin_read()?.open_table(SUBSCRIPTIONS)?;
    let mut all = Vec::new();
    for entry in table.iter()? {
        all.push(decode(entry?.1.value())?);
    }
    Ok(all)
}

pub(super) fn cursor(database: &Database, id: SubscriptionId) -> Result<Option<Cursor>, StoreError> {
    let table = database.begin_read()?.open_table(CURSORS)?;
    table.get(id)?.map(|cursor| decode(cursor.value())).transpose()
}

pub(super) fn cut_over(database: &Database, id: SubscriptionId) -> Result<Option<CutOver>, StoreError> {
    let table = database.begin_read()?.open_table(CUT_OVERS)?;
    table.get(id)?.map(|cut| decode(cut.value())).transpose()
}

pub(super) fn events(database: &Database, id: SubscriptionId) -> Result<Vec<StoredEvent>, StoreError> {
    let table = database.begin_read()?.open_table(EVENTS)?;
    let mut all = Vec::new();
    for entry in table.range((id, 0, 0)..(id + 1, 0, 0))? {
        all.push(decode(entry?.1.value())?);
    }
    Ok(all)
}

pub(super) fn lanes(database: &Database, id: SubscriptionId, keys: &[LaneKey]) -> Result<Vec<LaneRecord>, StoreError> {
    let table = database.begin_read()?.open_table(LANES)?;
    let record = |key: &LaneKey| match table.get((id, key.as_str()))? {
        Some(record) => decode(record.value()),
        None => Ok(LaneRecord::default()),
    };
    keys.iter().map(record).collect()
}

pub(super) fn letters(
    database: &Database,
    id: SubscriptionId,
    from: LetterNumber,
    max: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let table = database.begin_read()?.open_table(LETTERS)?;
    let mut all = Vec::new();
    for entry in table.range((id, from)..(id + 1, 0))?.take(max) {
        all.push(decode(entry?.1.value())?);
    }
    Ok(all)
}

/// The first dead letters of a user, at most so many.
pub(super) fn letters_of(
    database: &Database,
    id: SubscriptionId,
    user_id: &str,
    max: usize,
) -> Result<Vec<DeadLetter>, StoreError> {
    let table = database.begin_read()?.open_table(LETTERS)?;
    let mut found = Vec::new();
    for entry in table.range((id, 0)..(id + 1, 0))? {
        let letter: DeadLetter = decode(entry?.1.value())?;
        if letter.event.user_id == user_id {
            found.push(letter);
            if found.len() >= max {
                break;
            }
        }
    }
    Ok(found)
}

pub(super) fn letter_numbers(database: &Database, id: SubscriptionId) -> Result<Vec<LetterNumber>, StoreError> {
    let table = database.begin_read()?.open_table(LETTERS)?;
    let mut numbers = Vec::new();
    for entry in table.range((id, 0)..(id + 1, 0))? {
        numbers.push(entry?.0.value().1);
    }
    Ok(numbers)
}

pub(super) fn letter_counts(database: &Database, id: SubscriptionId) -> Result<(u64, LetterNumber), StoreError> {
    let table = database.begin_read()?.open_table(LETTER_COUNTS)?;
    Ok(table.get(id)?.map_or((0, 1), |counts| counts.value()))
}
