//! A handler for trials and tests: it fails events whose properties say `fail: true`.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Delivery, Handler, HandlerShape, Outcome};
use crate::domain::Event;
use crate::engine::Clock;

/// Handles one event in this process. What it does must be harmless when it is repeated after a crash, unless it has no
/// effect but its answer.
pub trait EventProcessor: Send + Sync + 'static {
    /// Handles it.
    ///
    /// # Errors
    /// Why it failed, for the dead letter.
    fn process(&self, event: &Event) -> Result<(), String>;
}

/// Fails events whose properties have `"fail": true`, and does nothing with others.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrialProcessor;

#[derive(Deserialize)]
struct TrialProperties<'a> {
    #[serde(borrow, default)]
    fail: Option<&'a RawValue>,
}

impl EventProcessor for TrialProcessor {
    fn process(&self, event: &Event) -> Result<(), String> {
        let properties: Result<TrialProperties<'_>, _> = serde_json::from_str(event.properties_json());
        let must_fail = properties.is_ok_and(|properties| properties.fail.is_some_and(|fail| fail.get() == "true"));
        if must_fail { Err("the payload says fail: true".to_owned()) } else { Ok(()) }
    }
}

/// A handler for trials and tests: each event takes a fixed time, and events with `fail: true`
/// fail.
pub struct TrialHandler {
    clock: Clock,
    /// How long an event takes.
    pause: Duration,
}

impl TrialHandler {
    /// Takes so long for each event.
    pub const fn new(clock: Clock, pause: Duration) -> Self {
        Self { clock, pause }
    }
}

#[async_trait]
impl Handler for TrialHandler {
    fn shape(&self) -> HandlerShape {
        if self.pause.is_zero() {
            HandlerShape { users_max: 256, events_per_user_max: 64, records_effects: false }
        } else {
            HandlerShape::SINGLE
        }
    }

    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let mut answers = Vec::with_capacity(users.len());
        for user in users {
            let mut outcomes = Vec::with_capacity(user.len());
            let mut has_failed = false;
            for delivery in user {
                if has_failed {
                    outcomes.push(Outcome::NotAttempted);
                    continue;
                }
                if !self.pause.is_zero() {
                    tokio::time::sleep(self.pause).await;
                }
                let now = self.clock.now_ms();
                outcomes.push(match TrialProcessor.process(&delivery.event) {
                    Ok(()) => Outcome::Done { processed_at_ms: now },
                    Err(error) => {
                        has_failed = true;
                        Outcome::Failed { error, retry_after: None, failed_at_ms: now }
                    }
                });
            }
            answers.push(outcomes);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_true_at_the_top_fails() {
        let check = |properties: &str, is_good: bool| {
            let event = Event { properties: properties.to_owned(), ..Event::default() };
            assert_eq!(TrialProcessor.process(&event).is_ok(), is_good, "{properties}");
        };
        check("", true);
        check("{}", true);
        check(r#"{"fail":false}"#, true);
        check(r#"{"fail":"true"}"#, true);
        check(r#"{"a":{"fail":true}}"#, true);
        check(r#"{"fail":true}"#, false);
        check(r#"{"a":1,"fail":true,"z":[]}"#, false);
    }
}
