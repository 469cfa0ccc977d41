//! The port to the events that are stored in ClickHouse, for deliveries that begin in the past.

use std::sync::Arc;

use async_trait::async_trait;
use tallyhouse_delivery::domain::Event;

use super::log_source::MICROS;
use crate::clickhouse::arrivals::{ArrivalRange, ArrivedEvent};
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clickhouse::query_store::QueryStore;
use crate::clock::ArrivalClock;
use crate::domain::{MILLIS_PER_DAY, OrgId, StoredEvent};
use crate::retention::Retention;
use crate::trace;

/// A stored event with its place among all.
#[derive(Clone, Debug)]
pub struct PastEvent {
    /// Its arrival.
    pub arrival: u64,
    /// The hash of its id: its place among events with the same arrival.
    pub hash: u64,
    /// The event; none when it has passed the retention period.
    pub event: Option<Event>,
}

/// Stored events cannot be read just now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct StoredEventsError(pub String);

/// Reads stored events in the order of their arrivals and hashes.
#[async_trait]
pub trait StoredEvents: Send + Sync + 'static {
    /// The first events of an organization in a range, at most so many.
    ///
    /// # Errors
    /// When they cannot be read just now.
    async fn read(
        &self,
        org_id: &OrgId,
        range: ArrivalRange,
        events_max: u32,
    ) -> Result<Vec<PastEvent>, StoredEventsError>;

    /// The first arrival of an organization in a range; none when there is none.
    ///
    /// # Errors
    /// When it cannot be read just now.
    async fn first_arrival(&self, org_id: &OrgId, from: u64, before: u64) -> Result<Option<u64>, StoredEventsError>;
}

/// Those in ClickHouse.
pub struct ClickHouseEvents {
    queries: QueryStore,
    limiter: Arc<QueryLimiter>,
    retention: Arc<Retention>,
    retention_days: u32,
    clock: Arc<ArrivalClock>,
}

impl ClickHouseEvents {
    /// With the queries of organizations and their limits. Events that are older than the retention period, in days, or
    /// whose month is being deleted, have passed it.
    pub const fn new(
        queries: QueryStore,
        limiter: Arc<QueryLimiter>,
        retention: Arc<Retention>,
        retention_days: u32,
        clock: Arc<ArrivalClock>,
    ) -> Self {
        Self { queries, limiter, retention, retention_days, clock }
    }
}

#[async_trait]
impl StoredEvents for ClickHouseEvents {
    async fn read(
        &self,
        org_id: &OrgId,
        range: ArrivalRange,
        events_max: u32,
    ) -> Result<Vec<PastEvent>, StoredEventsError> {
        let read = |ticket| self.queries.events_by_arrival(ticket, org_id, range, events_max);
        let arrived = self.limiter.try_run(org_id, read).await;
        let arrived = arrived.map_err(|error| StoredEventsError(error.to_string()))?;
        let kept_from = self.clock.now().plus_millis(-(i64::from(self.retention_days) * MILLIS_PER_DAY));
        let deleted = self.retention.deleted();
        let is_expired =
            |event: &StoredEvent| event.occurred_at < kept_from || deleted.find(event.occurred_at).is_some();
        let past = |ArrivedEvent { arrival, hash, event }| PastEvent {
            event: (!is_expired(&event)).then(|| delivered(event, arrival)),
            arrival,
            hash,
        };
        Ok(arrived.into_iter().map(past).collect())
    }

    async fn first_arrival(&self, org_id: &OrgId, from: u64, before: u64) -> Result<Option<u64>, StoredEventsError> {
        let read = |ticket| self.queries.first_arrival(ticket, org_id, from, before);
        self.limiter.try_run(org_id, read).await.map_err(|error| StoredEventsError(error.to_string()))
    }
}

fn delivered(event: StoredEvent, arrival: u64) -> Event {
    Event {
        id: event.event_id,
        event_type: event.event_type,
        campaign_id: event.campaign_id,
        creative_id: event.creative_id,
        source: event.source,
        user_id: event.user_id,
        occurred_at_ms: event.occurred_at.millis(),
        accepted_at_ms: arrival / MICROS,
        seq: event.seq,
        properties: event.properties,
        traceparent: trace::traceparent_of(arrival).unwrap_or_default(),
    }
}
