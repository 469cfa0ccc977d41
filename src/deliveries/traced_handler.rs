//! Makes a span of each delivery whose event came with a sampled call, and hands the trace on.

use std::sync::Arc;

use async_trait::async_trait;
use tallyhouse_delivery::domain::{DeadLetter, Settlement};
use tallyhouse_delivery::handler::{Delivery, Handler, HandlerShape, Outcome};

use crate::trace::{self, Context, KeyValue, SpanKind};

/// The name of the spans.
const NAME: &str = "deliver";

/// A handler whose deliveries are traced.
pub struct TracedHandler {
    inner: Arc<dyn Handler>,
    kind: SpanKind,
    organization: String,
    subscription: String,
}

impl TracedHandler {
    /// Of this subscription of an organization. `kind` says how the handler is reached.
    pub const fn new(inner: Arc<dyn Handler>, kind: SpanKind, organization: String, subscription: String) -> Self {
        Self { inner, kind, organization, subscription }
    }

    /// Begins a delivery's span, which whoever handles it continues. None when its event has no trace.
    fn begin(&self, delivery: &mut Delivery) -> Option<Context> {
        if delivery.traceparent.is_empty() {
            return None;
        }
        let attributes = vec![
            KeyValue::new("tallyhouse.organization", self.organization.clone()),
            KeyValue::new("tallyhouse.subscription", self.subscription.clone()),
            KeyValue::new("tallyhouse.delivery.attempt", i64::from(delivery.attempt)),
        ];
        let span = trace::continued_span(&delivery.traceparent, NAME, self.kind.clone(), attributes);
        delivery.traceparent = span.as_ref().and_then(trace::traceparent).unwrap_or_default();
        span
    }
}

/// What an outcome is called, and what kind of error it is.
const fn words(outcome: &Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::Done { .. } => ("processed", None),
        Outcome::Already(_) => ("known", None),
        Outcome::NotAttempted => ("not_attempted", None),
        Outcome::Failed { .. } => ("failed", Some("failed")),
        Outcome::Unavailable { .. } => ("unavailable", Some("unavailable")),
        Outcome::Disabled { .. } => ("disabled", Some("disabled")),
    }
}

#[async_trait]
impl Handler for TracedHandler {
    fn shape(&self) -> HandlerShape {
        self.inner.shape()
    }

    async fn deliver(&self, mut users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let deliveries = users
            .iter_mut()
            .enumerate()
            .flat_map(|(user, run)| run.iter_mut().enumerate().map(move |(number, delivery)| (user, number, delivery)));
        let begin = |(user, number, delivery)| Some((user, number, self.begin(delivery)?));
        let spans: Vec<(usize, usize, Context)> = deliveries.filter_map(begin).collect();
        let outcomes = self.inner.deliver(users).await;
        for (user, number, span) in spans {
            let outcome = outcomes.get(user).and_then(|run| run.get(number)).unwrap_or(&Outcome::NotAttempted);
            let (word, error) = words(outcome);
            trace::note_end(&span, KeyValue::new("tallyhouse.delivery.outcome", word), error);
        }
        outcomes
    }

    fn recall(&self) {
        self.inner.recall();
    }

    async fn refuse(&self, letters: &[DeadLetter]) -> Result<Vec<Settlement>, String> {
        self.inner.refuse(letters).await
    }

    async fn discard(&self, letters: &[DeadLetter]) -> Result<(), String> {
        self.inner.discard(letters).await
    }
}
