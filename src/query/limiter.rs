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

use crate::clickhouse::cancel::QueryCanceller;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::operation::SELECT;
use crate::clickhouse::ticket::QueryTicket;
use crate::domain::Error;
use crate::fairness::{FairPermit, FairSemaphore, Shares, Tenant};
use crate::trace::Calls;

/// Time that a query whose caller has gone may take to end, beyond its own
/// limit, before its place is given to others all the same.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// The bounds of a limiter. See the settings of the same names in
/// [`crate::config::Config`].
#[derive(Clone, Copy, Debug)]
pub struct QueryLimiterSettings {
    /// Queries that run at a time (`queries_in_flight_max`).
    pub in_flight_max: usize,
    /// Most of them of one organization, in percent
    /// (`organization_share_percent`).
    pub share_percent: u32,
    /// Longest a query may wait and run (`query_wait_ms_max`).
    pub wait_max: Duration,
}

/// Lets so many queries run at a time, each for so long.
pub struct QueryLimiter {
    places: Arc<FairSemaphore>,
    canceller: QueryCanceller,
    wait_max: Duration,
}

impl QueryLimiter {
    /// Within these bounds. Queries whose callers have gone are cancelled by
    /// `canceller`.
    pub fn new(settings: QueryLimiterSettings, canceller: QueryCanceller) -> Self {
        let places = FairSemaphore::new(Shares::new(settings.in_flight_max as u64, settings.share_percent));
        Self { places, canceller, wait_max: settings.wait_max }
    }

    /// Longest a query may wait and run.
    pub const fn wait_max(&self) -> Duration {
        self.wait_max
    }

    /// Queries that run, or are being cancelled.
    pub fn running(&self) -> u64 {
        self.places.taken()
    }

    /// Makes a query within the bounds. ClickHouse's own words go to the log
    /// only.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted` or `Internal`, as ClickHouse has it;
    /// `Unavailable` after the time limit, `Exhausted` when too many queries of
    /// the tenant wait.
    pub async fn run<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: impl Into<Tenant>,
        query: impl FnOnce(QueryTicket) -> F,
    ) -> Result<T, Error> {
        self.run_several(tenant, 1, |ticket, _| query(ticket)).await
    }

    /// The same for an answer that takes up to so many queries at a time. It is
    /// told how many it may make, which are fewer where the share is less.
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

    /// Makes a query within the bounds, for callers that can do something about
    /// what ClickHouse says.
    ///
    /// # Errors
    /// What ClickHouse says; `TookTooLong` after the time limit, `Crowded` when
    /// too many queries of the tenant wait.
    pub async fn try_run<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: impl Into<Tenant>,
        query: impl FnOnce(QueryTicket) -> F,
    ) -> Result<T, QueryError> {
        self.measured(&tenant.into(), 1, |ticket, _| query(ticket)).await
    }

    /// Waits for a place, to hold it for a query of one's own that may run for
    /// up to `wait_max` from now on. Take the settings of its ticket along with
    /// each request, and call [`RunningQuery::finish`] once the answer has been
    /// read to its end.
    ///
    /// # Errors
    /// `TookTooLong` when there is none within `wait_max`, `Crowded` when too
    /// many queries of the tenant wait.
    pub async fn begin(&self, tenant: &Tenant, wait_max: Duration) -> Result<RunningQuery, QueryError> {
        let deadline = Instant::now() + wait_max;
        tokio::time::timeout_at(deadline, self.begin_until(tenant, 1, deadline))
            .await
            .unwrap_or(Err(QueryError::TookTooLong))
    }

    async fn measured<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        tenant: &Tenant,
        at_a_time: u32,
        query: impl FnOnce(QueryTicket, u32) -> F,
    ) -> Result<T, QueryError> {
        SELECT.measured(&Calls::default(), self.in_time(tenant, at_a_time, query), QueryError::kind).await
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
        tokio::time::timeout_at(deadline, bounded).await.unwrap_or(Err(QueryError::TookTooLong))
    }

    async fn begin_until(
        &self,
        tenant: &Tenant,
        at_a_time: u32,
        deadline: Instant,
    ) -> Result<RunningQuery, QueryError> {
        let permit = self.places.acquire(tenant, at_a_time.into()).await.map_err(|_| QueryError::Crowded)?;
        Ok(RunningQuery {
            ticket: QueryTicket::until(deadline),
            deadline,
            permit: Some(permit),
            canceller: self.canceller.clone(),
        })
    }
}

/// Whether none of the queries can still run: they were answered, or the only
/// one failed by ClickHouse's own word.
fn has_ended<T>(answer: &Result<T, QueryError>, ticket: &QueryTicket) -> bool {
    match answer {
        Ok(_) => true,
        Err(QueryError::Overloaded(_) | QueryError::Failed(_)) => ticket.query_ids().len() <= 1,
        Err(_) => false,
    }
}

/// A place, and the query that runs in it. Dropped before
/// [`RunningQuery::finish`], it cancels the query in ClickHouse, and holds the
/// place until that has ended it.
pub struct RunningQuery {
    ticket: QueryTicket,
    deadline: Instant,
    permit: Option<FairPermit>,
    canceller: QueryCanceller,
}

impl RunningQuery {
    /// What its requests carry.
    pub const fn ticket(&self) -> &QueryTicket {
        &self.ticket
    }

    /// How many queries it may run at a time.
    pub fn places(&self) -> u64 {
        self.permit.as_ref().map_or(0, FairPermit::units)
    }

    /// The answer has been read to its end: nothing runs any more.
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
