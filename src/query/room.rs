//! Room for questions to the database: so many at a time, each for so long.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clickhouse::error::QueryError;
use crate::clickhouse::operation::SELECT;
use crate::domain::Error;
use crate::trace::Calls;

/// How long a caller is told to wait when ClickHouse is slow.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Room {
    places: Semaphore,
    places_max: u32,
    wait_max: Duration,
}

impl Room {
    /// For at most so many at a time, each for at most so long.
    pub fn new(in_flight_max: usize, wait_max: Duration) -> Self {
        let places_max = u32::try_from(in_flight_max).unwrap_or(u32::MAX);
        Self { places: Semaphore::new(in_flight_max), places_max, wait_max }
    }

    /// Asks the database, within the bounds; its own words go to the log only.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted` or `Internal`, as the database has it.
    pub async fn ask<T>(&self, answer: impl Future<Output = Result<T, QueryError>>) -> Result<T, Error> {
        self.ask_several(1, |_| answer).await
    }

    /// The same for an answer that takes up to so many questions at a time. It
    /// is told how many it may ask, which are fewer where fewer are allowed.
    ///
    /// # Errors
    /// Those of [`Room::ask`].
    pub async fn ask_several<T, F: Future<Output = Result<T, QueryError>>>(
        &self,
        at_a_time: u32,
        answer: impl FnOnce(u32) -> F,
    ) -> Result<T, Error> {
        let bounded = async {
            let places = at_a_time.min(self.places_max);
            let _places = self.places.acquire_many(places).await.map_err(|_| Error::internal())?; // It is never closed.
            answer(places).await.map_err(|error| {
                tracing::error!(%error, "a query failed");
                Error::from(error)
            })
        };
        let in_time = async {
            tokio::time::timeout(self.wait_max, bounded)
                .await
                .unwrap_or_else(|_| Err(Error::unavailable("the query took too long", RETRY_AFTER)))
        };
        SELECT.measured(&Calls::default(), in_time, |error| error.code.as_str()).await
    }
}
