//! The ticket of a query: an id by which it can be cancelled, a time limit that ClickHouse enforces, and
//! the setting that cancels it when its caller disconnects.
//!
//! Methods that read on behalf of callers require a ticket, and only
//! [`QueryLimiter`](super::query_limiter::QueryLimiter) issues one. The service's own records are small and read
//! by one task at a time; they are read outside of the limiter, with a time limit as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use clickhouse::query::Query;
use tokio::time::Instant;
use uuid::Uuid;

/// Time that ClickHouse has beyond the caller's, so that the caller's own
/// limit, which says so more clearly, comes first.
const ENGINE_GRACE: Duration = Duration::from_secs(1);

/// Longest that the service reads its own records.
const OWN_READ_MAX: Duration = Duration::from_secs(60);

/// The ticket of an operation that reads from ClickHouse, in one query or several.
#[derive(Clone, Debug)]
pub struct QueryTicket(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The beginning of the ids of its queries.
    id: Uuid,
    queries: AtomicU32,
    deadline: Instant,
}

impl QueryTicket {
    /// For a read of the service's own records: at most a minute.
    pub(super) fn own() -> Self {
        Self::until(Instant::now() + OWN_READ_MAX)
    }

    /// For queries that end before a time.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self(Arc::new(Inner { id: Uuid::now_v7(), queries: AtomicU32::new(0), deadline }))
    }

    /// The settings of one more query: `query_id`, `max_execution_time` in
    /// seconds, and `cancel_http_readonly_queries_on_client_close`. Send them
    /// with the request as they are; each call names another id.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        let number = self.0.queries.fetch_add(1, Ordering::Relaxed);
        let left = self.0.deadline.saturating_duration_since(Instant::now()) + ENGINE_GRACE;
        [
            ("query_id", self.query_id(number)),
            ("max_execution_time", format!("{:.3}", left.as_secs_f64())),
            ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ]
    }

    /// A query under this ticket.
    pub(super) fn put_on(&self, query: Query) -> Query {
        self.settings().into_iter().fold(query, |query, (name, value)| query.with_setting(name, value))
    }

    /// The ids of all queries with this ticket.
    pub(crate) fn query_ids(&self) -> Vec<String> {
        (0..self.0.queries.load(Ordering::Relaxed)).map(|number| self.query_id(number)).collect()
    }

    fn query_id(&self, number: u32) -> String {
        format!("tallyhouse-{}-{number}", self.0.id.simple())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_query_has_an_id_and_what_is_left_of_the_time() {
        let ticket = QueryTicket::until(Instant::now() + Duration::from_secs(10));
        assert_eq!(ticket.query_ids(), [""; 0]);
        let first = ticket.settings();
        tokio::time::advance(Duration::from_millis(2_500)).await;
        let second = ticket.clone().settings();
        assert_eq!((&*first[1].1, &*second[1].1), ("11.000", "8.500"));
        assert_eq!(ticket.query_ids(), [first[0].1.clone(), second[0].1.clone()]);
        assert_ne!(first[0].1, second[0].1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(ticket.settings()[1].1, "1.000", "0 would be no limit");
    }
}
