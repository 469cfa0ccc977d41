//! Writes what Redis has lost into it again, from the records in the store.

use std::collections::{HashMap, HashSet};

use super::{EventProcessor, RedisHandler, evalsha, keys, status};
use crate::domain::{DeadLetter, FinalOutcome, Settlement};
use crate::engine::{Engine, EngineError};
use crate::redis::RedisError;

/// Records that are read and written at a time.
const RECORDS_PER_STEP: usize = 1_000;
/// Seqs that are written by one command.
const SEQS_PER_COMMAND: usize = 1_000;

/// Why Redis could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Redis does not answer. What was written stays; the next call writes the rest.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The engine is not running, or its store cannot be read.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreSummary {
    /// Records that the store has.
    pub records: u64,
    /// Those of them that Redis lacked.
    pub restored: u64,
    /// Users whose order was written anew.
    pub users: u64,
    /// Dead letters.
    pub dead_letters: u64,
}

impl<P: EventProcessor> RedisHandler<P> {
    /// Writes what Redis lacks, while the engine hands out nothing: records of events, each user's order, dead letters.
    /// What Redis has stays as it is.
    ///
    /// # Errors
    /// When Redis does not answer, or the engine is not running.
    pub async fn restore(&self, engine: &Engine) -> Result<RestoreSummary, RestoreError> {
        let hold = engine.hold().await?;
        let mut summary = RestoreSummary::default();
        let listed = self.listed_letters().await?;
        let mut orders: HashMap<String, Vec<u64>> = HashMap::new();
        // Of those in the list, what this subscription has put there: others may write into the same Redis.
        let mut own: HashSet<String> = HashSet::new();
        let mut last = 0;
        loop {
            let some = engine.settlements(last + 1, RECORDS_PER_STEP).await?;
            let Some((number, _)) = some.last() else { break };
            last = *number;
            summary.records += some.len() as u64;
            summary.restored += self.restore_records(some.iter().map(|(_, settlement)| settlement)).await?;
            for (_, settlement) in some {
                if listed.contains(&settlement.event_id) {
                    own.insert(settlement.event_id);
                }
                // An erased user is nobody.
                let has_order = settlement.seq > 0 && !settlement.user_id.is_empty();
                if settlement.outcome == FinalOutcome::Processed && has_order {
                    orders.entry(settlement.user_id).or_default().push(settlement.seq);
                }
            }
        }
        summary.users = self.restore_orders(orders).await?;
        let mut letters: Vec<DeadLetter> = Vec::new();
        let mut next_letter = 0;
        loop {
            let some = engine.letters(next_letter, RECORDS_PER_STEP).await?;
            let Some(letter) = some.last() else { break };
            next_letter = letter.number + 1;
            letters.extend(some);
        }
        summary.dead_letters = letters.len() as u64;
        for letter in &letters {
            own.remove(&letter.event.id);
        }
        self.remove_letters(&own).await?;
        self.restore_letters(&letters, &listed).await?;
        self.loss.set(last).await?;
        drop(hold);
        Ok(summary)
    }

    async fn restore_records(&self, records: impl Iterator<Item = &Settlement>) -> Result<u64, RedisError> {
        let mut pipeline = ::redis::pipe();
        for Settlement { event_id, user_id, event_type, seq, outcome, processed_at_ms, attempts, error } in records {
            let mut command = evalsha(&self.scripts.restore, 2);
            command.arg(keys::event(event_id)).arg(keys::dedup(event_id)).arg(status(*outcome)).arg(processed_at_ms);
            command.arg(attempts).arg(user_id).arg(event_type).arg(keys::seq(*seq)).arg(error);
            pipeline.add_command(command);
        }
        Ok(self.connection.send::<u64>(pipeline).await?.into_iter().sum())
    }

    /// Writes each user's order anew: first what Redis has and the store does not know any more, then what the store knows.
    async fn restore_orders(&self, orders: HashMap<String, Vec<u64>>) -> Result<u64, RedisError> {
        let mut written = 0;
        let all: Vec<(String, Vec<u64>)> = orders.into_iter().collect();
        for some in all.chunks(RECORDS_PER_STEP) {
            let mut pipeline = ::redis::pipe();
            for (user, _) in some {
                pipeline.cmd("LRANGE").arg(keys::order(user)).arg(0).arg(-1);
            }
            let present: Vec<Vec<u64>> = self.connection.send(pipeline).await?;
            let mut pipeline = ::redis::pipe();
            for ((user, seqs), present) in some.iter().zip(present) {
                if present.ends_with(seqs) {
                    continue;
                }
                written += 1;
                let known: HashSet<u64> = seqs.iter().copied().collect();
                let mut order: Vec<u64> = present.into_iter().filter(|seq| !known.contains(seq)).collect();
                order.extend(seqs);
                // Should this be cut off, the next call finds what is missing.
                pipeline.cmd("DEL").arg(keys::order(user));
                for seqs in order.chunks(SEQS_PER_COMMAND) {
                    pipeline.cmd("RPUSH").arg(keys::order(user)).arg(seqs);
                }
            }
            if !pipeline.is_empty() {
                let _: Vec<u64> = self.connection.send(pipeline).await?;
            }
        }
        Ok(written)
    }

    /// The ids in the list of dead letters.
    async fn listed_letters(&self) -> Result<HashSet<String>, RedisError> {
        let mut pipeline = ::redis::pipe();
        pipeline.cmd("LRANGE").arg(keys::DEAD_LETTERS).arg(0).arg(-1);
        let mut listed: Vec<HashSet<String>> = self.connection.send(pipeline).await?;
        Ok(listed.pop().unwrap_or_default())
    }

    /// Removes dead letters that were replayed or discarded.
    pub(super) async fn remove_letters(&self, ids: &HashSet<String>) -> Result<(), RedisError> {
        let mut pipeline = ::redis::pipe();
        for id in ids {
            pipeline.cmd("LREM").arg(keys::DEAD_LETTERS).arg(0).arg(id);
            if let Some(hash) = keys::dead_letter_hash(id) {
                pipeline.cmd("DEL").arg(hash);
            }
        }
        let _: Vec<u64> = self.connection.send(pipeline).await?;
        Ok(())
    }

    /// Writes dead letters, and into the list those that it lacks.
    async fn restore_letters(&self, letters: &[DeadLetter], listed: &HashSet<String>) -> Result<(), RedisError> {
        let mut pipeline = ::redis::pipe();
        for letter in letters {
            let event = &letter.event;
            if !listed.contains(&event.id) {
                pipeline.cmd("RPUSH").arg(keys::DEAD_LETTERS).arg(&event.id);
            }
            let Some(key) = keys::dead_letter_hash(&event.id) else { continue };
            let hash = pipeline.cmd("HSET").arg(key);
            hash.arg(&[("eventId", event.id.as_str()), ("userId", &event.user_id), ("type", &event.event_type)]);
            hash.arg(&[("reason", letter.reason.as_str()), ("error", &letter.error)]);
            hash.arg("attempts").arg(letter.attempts).arg("failedAt").arg(letter.failed_at_ms);
            hash.arg("event").arg(keys::event_json(event));
            if event.seq > 0 {
                hash.arg("seq").arg(event.seq);
            }
        }
        let _: Vec<u64> = self.connection.send(pipeline).await?;
        Ok(())
    }
}
