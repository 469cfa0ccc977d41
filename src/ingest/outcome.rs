//! The port through which the verdicts on events leave ingest, for metrics and the live tail.

use std::sync::Arc;

use crate::domain::{OrgId, Timestamp, Verdict, VerdictCounts};

/// One event and its verdict.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whose event it was.
    pub org_id: OrgId,
    /// When the verdict was made.
    pub at: Timestamp,
    /// The id as it was sent; empty when it had none.
    pub event_id: String,
    /// The type as it was sent.
    pub event_type: String,
    /// The campaign as it was sent.
    pub campaign_id: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// Somebody who wants to know what becomes of events. Called for every batch,
/// by the batch's own task: it must be quick and must not fail.
pub trait OutcomeSink: Send + Sync + 'static {
    /// A batch has got its verdicts.
    fn counted(&self, org_id: &OrgId, counts: VerdictCounts);

    /// Whether [`OutcomeSink::happened`] wants to be called at all just now.
    /// Making outcomes costs; nobody pays when nobody watches.
    fn wants_outcomes(&self) -> bool;

    /// What became of each event of a batch.
    fn happened(&self, outcomes: &[Arc<Outcome>]);
}

/// All sinks.
#[derive(Clone, Default)]
pub struct Outcomes {
    sinks: Arc<[Arc<dyn OutcomeSink>]>,
}

impl Outcomes {
    /// Tells each of these.
    pub fn new(sinks: Vec<Arc<dyn OutcomeSink>>) -> Self {
        Self { sinks: sinks.into() }
    }

    /// Whether anybody wants outcomes.
    pub fn wanted(&self) -> bool {
        self.sinks.iter().any(|sink| sink.wants_outcomes())
    }

    /// Tells everybody about a batch.
    pub fn report(&self, org_id: &OrgId, counts: VerdictCounts, outcomes: &[Arc<Outcome>]) {
        for sink in self.sinks.iter() {
            sink.counted(org_id, counts);
            if !outcomes.is_empty() && sink.wants_outcomes() {
                sink.happened(outcomes);
            }
        }
    }
}
