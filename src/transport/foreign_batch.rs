//! Submits batches of foreign events, in the same way for every protocol that they arrive by.

use std::time::Duration;

use super::application::Application;
use super::foreign_event::ForeignEvent;
use crate::domain::{Error, OrgId};
use crate::event_intake::{BatchResults, EventBatch};
use crate::ingest::pipeline::Durability;

/// How long the sender of undecided events is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Submits events that an organization sent in `bytes` bytes, and returns their results when what was accepted is
/// durable.
///
/// # Errors
/// `Unavailable` when some of the events are undecided: formats of other systems cannot name single events to send
/// again, and whatever was taken counts once when the whole request is repeated. Otherwise those of
/// [`EventIntake::submit`](crate::event_intake::EventIntake::submit).
pub(super) async fn submit(
    app: &Application,
    org_id: &OrgId,
    events: &[ForeignEvent],
    bytes: usize,
) -> Result<BatchResults, Error> {
    if events.is_empty() {
        return Ok(BatchResults::default());
    }
    let batch = EventBatch {
        org_id,
        drafts: events.iter().map(ForeignEvent::draft),
        bytes,
        idempotency: None,
        durability: Durability::Logged,
    };
    decided(app.intake.submit(batch).await?.results().await?)
}

fn decided(results: BatchResults) -> Result<BatchResults, Error> {
    if results.counts.undecided == 0 {
        return Ok(results);
    }
    let message = "whether some of the events are new cannot be told just now; send the request again";
    Err(Error::unavailable(message, RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ErrorCode, VerdictCounts};

    #[test]
    fn a_batch_with_undecided_events_is_to_be_sent_again() {
        let results = |undecided| BatchResults {
            counts: VerdictCounts { accepted: 1, undecided, ..VerdictCounts::default() },
            ..BatchResults::default()
        };
        assert!(decided(results(0)).is_ok());
        let error = decided(results(1)).expect_err("one is undecided");
        assert_eq!((error.code, error.retry_after), (ErrorCode::Unavailable, Some(RETRY_AFTER)));
    }
}
