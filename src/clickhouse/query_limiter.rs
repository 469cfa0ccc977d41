//! Limits the queries that run in ClickHouse at a time, shared fairly.
//!
//! A query counts while it runs in ClickHouse, not while somebody waits for its answer: when the caller
//! disconnects, the query is cancelled, and counts until it has ended. An organization holds at most its
//! share, and of those that wait, the one that holds the least is served first ([`crate::fairness`]).
//!
//! Inserts have a separate limit, so that reads never cause them to be refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cancel::QueryCanceller;
use super::error::QueryError;
use super::operation::SELECT;
use super::ticket::QueryTicket;
use crate::domain::Error;
use crate::fairness::{FairPermit, FairSemaphore, Shares, Tenant};

/// How long a cancelled query may take to end beyond its own limit. After that it no longer counts.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// The limits of a limiter. See the settings of the same names in [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct QueryLimiterSettings {
    /// Queries that run at a time (`queries_in_flight_max`).
    pub in_flight_max: usize,
    /// Largest share of one organization, in percent (`organization_share_percent`).
    pub share_percent: u32,
    /// Longest time for waiting and running (`query_wait_ms_max`).
    pub wait_max: Duration,
}

/// Limits the number and the duration of queries that run at a time.
pub struct QueryLimiter {
    places: Arc<FairSemaphore>,
    canceller: QueryCanceller,
    wait_max: Duration,
}

impl QueryLimiter {
    /// Creates a limiter. `canceller` cancels queries of disconnected callers.
    pub fn new(settings: QueryLimiterSettings, canceller: QueryCanceller) -> Self {
        let places = FairSemaphore::new(Shares::new(settings.in_flight_max as u64, settings.share_percent));
        Self { places, canceller, wait_max: settings.wait_max }
    }

    /// Longest time for waiting and running.
    pub const fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// Queries that run, or are being cancelled.
    pub fn running(&self) -> u64 {
        self.places.taken()
    }

    /// Runs a query within the limits. ClickHouse's error text goes to the log only.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted` or `Internal`, depending on ClickHouse's error; `Unavailable`
    /// after the time limit; `Exhausted` if too many queries of the tenant wait.
    pub async fn run<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: impl Into<Tenant>,
        query: impl FnOnce(QueryTicket) -> F,
    ) -> Result<T, Error> {
        self.run_several(tenant, 1, |ticket, _| query(ticket)).await
    }

    /// The same for an answer that requires several queries at a time. It is told how many it can
    /// run, which may be fewer than requested.
    ///
    /// # Errors
    /// Those of [`QueryLimiter::run`].
    pub async fn run_several<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: impl Into<Tenant>,
        at_a_time: u32,
        query: impl FnOnce(QueryTicket, u32) -> F,
    ) -> Result<T, Error> {
        self.measured(&tenant.into(), at_a_time, query).await.map_err(|error| {
            tracing::error!(%error, "a query failed");
            Error::from(error)
        })
    }

    /// Runs a query within the limits, for callers that handle ClickHouse's errors.
    ///
    /// # Errors
    /// ClickHouse's error; `TimedOut` after the time limit; `QueueFull` if too many queries of the
    /// tenant wait.
    pub async fn try_run<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: impl Into<Tenant>,
        query: impl FnOnce(QueryTicket) -> F,
    ) -> Result<T, QueryError> {
        self.measured(&tenant.into(), 1, |ticket, _| query(ticket)).await
    }

    /// Acquires a slot for a query that runs for up to `wait_max` from now on. Send the settings of
    /// its ticket with each request, and call [`RunningQuery::finish`] when the answer has been
    /// read completely.
    ///
    /// # Errors
    /// `TimedOut` if no slot is free within `wait_max`; `QueueFull` if too many queries of the
    /// tenant wait.
    pub async fn begin(&self, tenant: &Tenant, wait_max: Duration) -> Result<RunningQuery, QueryError> {
        let deadline = Instant::now() + wait_max;
        tokio::time::timeout_at(deadline, self.begin_until(tenant, 1, deadline))
            .await
            .unwrap_or(Err(QueryError::TimedOut))
    }

    async fn measured<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: &Tenant,
        at_a_time: u32,
        query: impl FnOnce(QueryTicket, u32) -> F,
    ) -> Result<T, QueryError> {
        SELECT.measured(self.in_time(tenant, at_a_time, query), QueryError::kind).await
    }

    async fn in_time<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: &Tenant,
        at_a_time: u32,
        query: impl FnOnce(QueryTicket, u32) -> F,
    ) -> Result<T, QueryError> {
        let deadline = Instant::now() + self.wait_max;
        let bounded = async {
            let running = self.begin_until(tenant, at_a_time, deadline).await?;
            let places = u32::try_from(running.places()).unwrap_or(u32::MAX);
            let answer = query(running.ticket().clone(), places).await;
            if has_ended(&answer, running.ticket()) {
                running.finish();
            }
            answer
        };
        tokio::time::timeout_at(deadline, bounded).await.unwrap_or(Err(QueryError::TimedOut))
    }

    async fn begin_until(
        &self,
        tenant: &Tenant,
        at_a_time: u32,
        deadline: Instant,
    ) -> Result<RunningQuery, QueryError> {
        let permit = self.places.acquire(tenant, at_a_time.into()).await.map_err(|_| QueryError::QueueFull)?;
        Ok(RunningQuery {
            ticket: QueryTicket::until(deadline),
            deadline,
            permit: Some(permit),
            canceller: self.canceller.clone(),
        })
    }
}

/// Whether no query is running any more: all were answered, or the only one failed with an error of
/// ClickHouse.
fn has_ended<T>(answer: &Result<T, QueryError>, ticket: &QueryTicket) -> bool {
    match answer {
        Ok(_) => true,
        Err(QueryError::Overloaded(_) | QueryError::Failed(_)) => ticket.query_ids().len() <= 1,
        Err(_) => false,
    }
}

/// A slot with its running query. If it is dropped before [`RunningQuery::finish`], it cancels the
/// query in ClickHouse and keeps the slot until the query has ended.
pub struct RunningQuery {
    ticket: QueryTicket,
    deadline: Instant,
    permit: Option<FairPermit>,
    canceller: QueryCanceller,
}

impl RunningQuery {
    /// The ticket for its requests.
    pub const fn ticket(&self) -> &QueryTicket {
        &self.ticket
    }

    /// The number of queries it can run at a time.
    pub fn places(&self) -> u64 {
        self.permit.as_ref().map_or(0, FairPermit::units)
    }

    /// Releases the slot. Call this when the answer has been read completely.
    pub fn finish(mut self) {
        self.permit = None;
    }
}

impl Drop for RunningQuery {
    fn drop(&mut self) {
        let (Some(permit), query_ids) = (self.permit.take(), self.ticket.query_ids()) else { return };
        if query_ids.is_empty() {
            return;
        }
        // Without a runtime the service has stopped.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (canceller, until) = (self.canceller.clone(), self.deadline.max(Instant::now()) + CANCEL_GRACE);
        runtime.spawn(async move {
            let cancelled = tokio::time::timeout_at(until, canceller.cancel(&query_ids)).await;
            if let Ok(Err(error)) = &cancelled {
                // It ends by its own time limit, until when its place is taken, unless ClickHouse is not there at all.
                tracing::warn!(%error, "could not cancel a query whose caller has disconnected");
                if !matches!(error, QueryError::Unreachable(_)) {
                    tokio::time::sleep_until(until).await;
                }
            }
            drop(permit);
        });
    }
}
