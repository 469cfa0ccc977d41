//! The one way in for events: every transport hands its batches to [`EventIntake::submit`], which
//! alone decides what is taken.
//!
//! The path of a batch:
//!
//! 1. The number of its events is checked before any of them is read.
//! 2. With an idempotency key, [`crate::idempotency`] lets the call through once, or answers it with
//!    the stored response of the first.
//! 3. [`crate::ingest::pipeline`] validates and deduplicates the events, charges the new ones to the
//!    rate limits, and logs them.
//!
//! A transport reads drafts, says for which organization, and writes the results in its own terms.
//! Who may call, and for which organization, has been decided before ([`crate::transport`]).

use std::sync::Arc;

use crate::domain::{Error, EventDraft, OrgId, Quota, Verdict, VerdictCounts};
use crate::idempotency::{BodyHash, IdempotencyKey, IdempotentIngest, KeyedSubmission, StoredResponse};
use crate::ingest::pipeline::{BatchVerdicts, Durability, Pipeline, Submission};
use crate::limits::RateLimits;

/// Events that one call sends, all of one organization.
pub struct EventBatch<'a, D> {
    /// The organization that they count for.
    pub org_id: &'a OrgId,
    /// The events in order: any collection of [`EventDraft`]s that knows its length. They are made
    /// one by one after the length has been checked.
    pub drafts: D,
    /// About how many bytes the drafts hold; for the bound `ingest_bytes_in_flight_max`.
    pub bytes: usize,
    /// What makes the call repeatable, if anything does.
    pub idempotency: Option<Idempotency<'a>>,
    /// What the answer promises.
    pub durability: Durability,
}

/// What makes a call repeatable.
#[derive(Clone, Copy)]
pub struct Idempotency<'a> {
    /// The caller's key.
    pub key: &'a IdempotencyKey,
    /// Stands for the call's body: the same key with another hash is refused. None: a hash over what
    /// the drafts say, and over the durability.
    pub body_hash: Option<BodyHash>,
}

/// What became of a batch.
#[derive(Clone, Debug, Default)]
pub struct BatchResults {
    /// One verdict for each event, in order.
    pub verdicts: Vec<Verdict>,
    /// How many of each.
    pub counts: VerdictCounts,
    /// The ids that were made for events without one, by position. Empty where there was no key:
    /// an event without an id is rejected then.
    pub made_event_ids: Vec<Option<String>>,
    /// Whether these are the results of a former call with the same key.
    pub is_replayed: bool,
}

/// A batch on its way to the disk. It gets there whether or not anybody waits for its results.
pub struct PendingBatch(Pending);

enum Pending {
    Plain(Submission),
    Keyed(KeyedSubmission),
}

impl PendingBatch {
    /// Waits for the results.
    ///
    /// # Errors
    /// `Exhausted` or `Unavailable` when the log cannot take the events, or ClickHouse does not in
    /// time where that was asked for; `Unavailable` when the response cannot be stored under its key.
    pub async fn results(self) -> Result<BatchResults, Error> {
        match self.0 {
            Pending::Plain(submission) => {
                let BatchVerdicts { verdicts, counts } = submission.verdicts().await?;
                Ok(BatchResults { verdicts, counts, made_event_ids: Vec::new(), is_replayed: false })
            }
            Pending::Keyed(submission) => {
                let StoredResponse { verdicts, event_ids, is_replayed } = submission.response().await?;
                let BatchVerdicts { verdicts, counts } = verdicts;
                Ok(BatchResults { verdicts, counts, made_event_ids: event_ids, is_replayed })
            }
        }
    }
}

/// Takes batches of events.
pub struct EventIntake {
    pipeline: Arc<Pipeline>,
    idempotent: Arc<IdempotentIngest>,
    limits: Arc<RateLimits>,
}

impl EventIntake {
    /// Takes batches into this pipeline. `limits` must be those of the pipeline.
    pub const fn new(pipeline: Arc<Pipeline>, idempotent: Arc<IdempotentIngest>, limits: Arc<RateLimits>) -> Self {
        Self { pipeline, idempotent, limits }
    }

    /// Takes a batch as far as its place in the log's line, which is the order of the calls. The
    /// results follow.
    ///
    /// # Errors
    /// Nothing of the batch has happened then.
    ///
    /// | code | when |
    /// |---|---|
    /// | `TooLarge` | there are more events than `batch_events_max`, or more new ones than a rate limit ever allows |
    /// | `KeyReused` | a former call with the key had another body |
    /// | `Limited` | the new events are over a rate limit of the organization or of a user |
    /// | `Exhausted` | a bound on memory, disk or keys is reached |
    /// | `Unavailable` | keys cannot be stored, or the service's clock is in doubt |
    pub async fn submit<'a, D>(&self, batch: EventBatch<'a, D>) -> Result<PendingBatch, Error>
    where
        D: IntoIterator<Item = EventDraft<'a>, IntoIter: ExactSizeIterator>,
    {
        let EventBatch { org_id, drafts, bytes, idempotency, durability } = batch;
        let drafts = drafts.into_iter();
        self.pipeline.check_count(drafts.len())?;
        let drafts: Vec<EventDraft<'_>> = drafts.collect();
        let pending = match idempotency {
            None => Pending::Plain(self.pipeline.submit(org_id, drafts, bytes, durability).await?),
            Some(Idempotency { key, body_hash }) => {
                let (idempotent, call) = (&self.idempotent, (org_id, key));
                Pending::Keyed(idempotent.submit(&self.pipeline, call, body_hash, drafts, bytes, durability).await?)
            }
        };
        Ok(PendingBatch(pending))
    }

    /// Checks the number of a batch's events before they are made, where that costs more than they do.
    /// [`EventIntake::submit`] checks it again.
    ///
    /// # Errors
    /// `TooLarge` for more than `batch_events_max`.
    pub fn check_count(&self, count: usize) -> Result<(), Error> {
        self.pipeline.check_count(count)
    }

    /// How many new events an organization may still send now, and of which limit; none where it has
    /// no limit.
    pub fn events_left(&self, org_id: &OrgId) -> Option<(Quota, u32)> {
        self.limits.org_events_left(org_id)
    }
}
