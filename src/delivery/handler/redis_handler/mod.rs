//! Events are handled in this process, and what became of each is recorded in Redis in one atomic step, once.
//!
//! | key | type | what |
//! |---|---|---|
//! | `event:{eventId}` | hash | `status`, `processedAt`, `attempts`, `userId`, `type`, `seq`, `error` |
//! | `dedup:{eventId}` | string | there once the event has ended |
//! | `inflight:{eventId}` | string | while it is handled, with an expiry |
//! | `order:{userId}` | list | the seqs of processed events in the order in which they were processed |
//! | `dlq:list`, `dlq:{eventId}` | list, hash | dead letters; that of an event with the id `list` is in the list only |
//! | `tallyhouse:deliveries` | hash | how many records each subscription has written: if it is less than the store knows, Redis has lost data |
//!
//! The script that records looks at `dedup:{eventId}` first. So an event that is handed out again after a crash changes
//! nothing, and its first record is returned.

mod keys;
mod loss;
mod restore;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Script, Value};
use async_trait::async_trait;

pub use loss::RedisLoss;
pub use restore::{RestoreError, RestoreSummary};

use super::{Delivery, EventProcessor, Handler, HandlerShape, Outcome};
use crate::domain::{DeadLetter, DeadLetterReason, Event, FinalOutcome, Settlement};
use crate::engine::Clock;
use crate::redis::{RedisConnection, RedisError};

/// How long a mark that an event is being handled lasts, should nobody take it away.
const IN_FLIGHT_FOR: Duration = Duration::from_secs(60);
/// Users, and events of each, in one call.
const USERS_MAX: usize = 256;
const EVENTS_PER_USER_MAX: usize = 16;

/// The scripts of the handler.
pub(super) struct Scripts {
    begin: Script,
    settle: Script,
    restore: Script,
}

impl Scripts {
    fn new() -> Self {
        Self {
            begin: Script::new(include_str!("begin.lua")),
            settle: Script::new(include_str!("settle.lua")),
            restore: Script::new(include_str!("restore.lua")),
        }
    }
}

/// Handles events in this process, and records the result of each in Redis in one atomic step.
pub struct RedisHandler<P> {
    processor: P,
    connection: Arc<RedisConnection>,
    scripts: Scripts,
    clock: Clock,
    /// The subscription's name for itself in the hash of counts.
    counts_field: String,
    loss: RedisLoss,
}

/// The scripts that a connection of a [`RedisHandler`] must know.
pub fn redis_handler_scripts() -> Vec<Script> {
    let Scripts { begin, settle, restore } = Scripts::new();
    vec![begin, settle, restore]
}

impl<P: EventProcessor> RedisHandler<P> {
    /// Handles events by this processor. `counts_field` names the subscription for ever: no other that uses the same Redis
    /// may have the same.
    pub fn new(processor: P, connection: Arc<RedisConnection>, clock: Clock, counts_field: String) -> Self {
        let loss = RedisLoss::new(Arc::clone(&connection), counts_field.clone());
        Self { processor, connection, scripts: Scripts::new(), clock, counts_field, loss }
    }

    /// Whether Redis has lost data.
    pub const fn loss(&self) -> &RedisLoss {
        &self.loss
    }

    /// Marks events as being handled, and says which have ended before.
    async fn begin(&self, users: &[Vec<Delivery>]) -> Result<Vec<Value>, RedisError> {
        let mut pipeline = ::redis::pipe();
        for delivery in users.iter().flatten() {
            let id = &delivery.event.id;
            let replay = if delivery.is_replay { "1" } else { "" };
            let mut command = evalsha(&self.scripts.begin, 3);
            command.arg(keys::event(id)).arg(keys::dedup(id)).arg(keys::in_flight(id));
            pipeline.add_command(command.arg(IN_FLIGHT_FOR.as_millis().to_string()).arg(replay).take());
        }
        self.connection.send(pipeline).await
    }

    /// The processor's answers; nothing for what ended before.
    fn process(&self, users: &[Vec<Delivery>], begun: &[Value]) -> Vec<Vec<Answer>> {
        let mut begun = begun.iter();
        let process_user = |user: &Vec<Delivery>| {
            let mut has_failed = false;
            let mut answers = Vec::with_capacity(user.len());
            for delivery in user {
                let known = begun.next().and_then(|value| settlement(&delivery.event, value));
                answers.push(match known {
                    Some(known) => {
                        has_failed |= known.outcome == FinalOutcome::Failed;
                        Answer::Known(known)
                    }
                    None if has_failed => Answer::NotAttempted,
                    None => {
                        let processed = self.processor.process(&delivery.event);
                        has_failed = processed.is_err();
                        Answer::Processed(processed)
                    }
                });
            }
            answers
        };
        users.iter().map(process_user).collect()
    }

    /// The command that records an answer.
    fn record(&self, delivery: &Delivery, answer: &Answer, now: u64) -> Option<Cmd> {
        match answer {
            Answer::Known(_) => None,
            Answer::Processed(Ok(())) => Some(self.settle(delivery, FinalOutcome::Processed, "", now)),
            Answer::Processed(Err(error)) if delivery.is_last_attempt => {
                Some(self.settle(delivery, FinalOutcome::Failed, error, now))
            }
            Answer::Processed(Err(_)) | Answer::NotAttempted => {
                Some(::redis::cmd("DEL").arg(keys::in_flight(&delivery.event.id)).take())
            }
        }
    }

    fn settle(&self, delivery: &Delivery, outcome: FinalOutcome, error: &str, now: u64) -> Cmd {
        let reason = DeadLetterReason::HandlerFailed.as_str();
        let record = Record { attempts: delivery.attempt, outcome, error, reason, at: now, replay: delivery.is_replay };
        self.settle_record(&delivery.event, &record)
    }

    fn settle_record(&self, event: &Event, record: &Record<'_>) -> Cmd {
        let id = &event.id;
        let mut command = evalsha(&self.scripts.settle, 7);
        command.arg(keys::event(id)).arg(keys::dedup(id)).arg(keys::in_flight(id)).arg(keys::order(&event.user_id));
        command.arg(keys::DEAD_LETTERS).arg(keys::dead_letter(id)).arg(keys::COUNTS);
        command.arg(&self.counts_field).arg(id).arg(status(record.outcome)).arg(record.at).arg(record.attempts);
        command.arg(&event.user_id).arg(&event.event_type).arg(keys::seq(event.seq)).arg(record.error);
        command.arg(if record.replay { "1" } else { "" }).arg(record.reason);
        let is_failed = record.outcome == FinalOutcome::Failed;
        command.arg(if is_failed { keys::event_json(event) } else { String::new() });
        command
    }
}

/// What the processor says, or Redis.
enum Answer {
    Known(Settlement),
    Processed(Result<(), String>),
    NotAttempted,
}

struct Record<'a> {
    attempts: u32,
    outcome: FinalOutcome,
    error: &'a str,
    reason: &'a str,
    at: u64,
    replay: bool,
}

fn evalsha(script: &Script, keys: usize) -> Cmd {
    ::redis::cmd("EVALSHA").arg(script.get_hash()).arg(keys).take()
}

const fn status(outcome: FinalOutcome) -> &'static str {
    match outcome {
        FinalOutcome::Processed => "processed",
        FinalOutcome::Failed => "failed",
    }
}

/// The record that a script returns: status, processedAt, attempts, error.
fn settlement(event: &Event, value: &Value) -> Option<Settlement> {
    if matches!(value, Value::Nil | Value::Boolean(false)) {
        return None;
    }
    let fields: Vec<Option<String>> = ::redis::from_redis_value(value.clone()).ok()?;
    let field = |at: usize| fields.get(at).cloned().flatten().unwrap_or_default();
    let outcome = if field(0) == "failed" { FinalOutcome::Failed } else { FinalOutcome::Processed };
    Some(Settlement {
        event_id: event.id.clone(),
        user_id: event.user_id.clone(),
        event_type: event.event_type.clone(),
        seq: event.seq,
        outcome,
        processed_at_ms: field(1).parse().unwrap_or_default(),
        attempts: field(2).parse().unwrap_or(1),
        error: field(3),
    })
}

#[async_trait]
impl<P: EventProcessor> Handler for RedisHandler<P> {
    fn shape(&self) -> HandlerShape {
        HandlerShape { users_max: USERS_MAX, events_per_user_max: EVENTS_PER_USER_MAX, records_effects: true }
    }

    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let unavailable = |error: RedisError| -> Vec<Vec<Outcome>> {
            let outcome = Outcome::Unavailable { error: error.to_string() };
            users.iter().map(|_| vec![outcome.clone()]).collect()
        };
        let begun = match self.begin(&users).await {
            Ok(begun) => begun,
            Err(error) => return unavailable(error),
        };
        let answers = self.process(&users, &begun);
        let now = self.clock.now_ms();
        let mut pipeline = ::redis::pipe();
        for (delivery, answer) in users.iter().flatten().zip(answers.iter().flatten()) {
            if let Some(command) = self.record(delivery, answer, now) {
                pipeline.add_command(command);
            }
        }
        let recorded: Vec<Value> = match self.connection.send(pipeline).await {
            Ok(recorded) => recorded,
            Err(error) => return unavailable(error),
        };
        let mut recorded = recorded.into_iter();
        let mut outcome = |(delivery, answer): (&Delivery, Answer)| match answer {
            Answer::Known(known) => Outcome::Already(known),
            Answer::NotAttempted => {
                recorded.next();
                Outcome::NotAttempted
            }
            Answer::Processed(processed) => {
                let answer = recorded.next();
                let is_settled = processed.is_ok() || delivery.is_last_attempt;
                let known = answer.filter(|_| is_settled).and_then(|value| settlement(&delivery.event, &value));
                match (known, processed) {
                    (Some(known), _) => Outcome::Already(known),
                    (None, Ok(())) => Outcome::Done { processed_at_ms: now },
                    (None, Err(error)) => Outcome::Failed { error, retry_after: None, failed_at_ms: now },
                }
            }
        };
        users.iter().zip(answers).map(|(user, answers)| user.iter().zip(answers).map(&mut outcome).collect()).collect()
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<Vec<Settlement>, String> {
        let mut pipeline = ::redis::pipe();
        for letter in letters {
            let record = Record {
                attempts: letter.attempts,
                outcome: FinalOutcome::Failed,
                error: &letter.error,
                reason: letter.reason.as_str(),
                at: letter.failed_at_ms,
                replay: false,
            };
            pipeline.add_command(self.settle_record(&letter.event, &record));
        }
        let recorded: Vec<Value> = self.connection.send(pipeline).await.map_err(|error| error.to_string())?;
        Ok(letters.iter().zip(recorded).filter_map(|(letter, value)| settlement(&letter.event, &value)).collect())
    }

    async fn discard(&self, letters: &[DeadLetter]) -> Result<(), String> {
        let ids: HashSet<String> = letters.iter().map(|letter| letter.event.id.clone()).collect();
        self.remove_letters(&ids).await.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests;
