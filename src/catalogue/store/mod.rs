//! Stores shows, notifications and idempotency keys in one database, so that one transaction changes all
//! of them.
//!
//! [`CatalogueStore`] is the port. [`SqliteStore`] uses a file and serves one service at a time;
//! [`PostgresStore`] uses a server, for any number of services. `conformance` is the test suite for
//! both.

#[cfg(test)]
mod conformance;
mod migrations;
mod postgres;
mod rows;
mod sqlite;
#[cfg(test)]
pub(crate) mod test_postgres;

use async_trait::async_trait;

pub use postgres::PostgresStore;
pub use sqlite::SqliteStore;

use crate::domain::{
    Decision, Fingerprint, IdempotencyKey, ListQuery, Listing, Notification, Page, Refusal, Show, ShowId, Timestamp,
};

/// An error of the database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database failed or cannot be reached.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The migrations failed.
    #[error("the catalogue's tables cannot be brought up to date: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A row has invalid contents.
    #[error("the catalogue's database holds a {0} that is none")]
    Corrupt(&'static str),
}

impl StoreError {
    /// Whether a retry may succeed: the database cannot be reached, is busy, starting or stopping.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().is_some_and(|code| postgres::is_temporary(&code) || sqlite::is_temporary(&code))
            }
            Self::Database(error) => matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
                    | sqlx::Error::BeginFailed
            ),
            Self::Migration(_) | Self::Corrupt(_) => false,
        }
    }
}

/// A use of an idempotency key.
#[derive(Clone, Debug)]
pub struct KeyUse {
    /// The key.
    pub key: IdempotencyKey,
    /// The body that it came with.
    pub fingerprint: Fingerprint,
}

/// The stored answer of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptAnswer {
    /// The show that was made, as it was then.
    Same(Box<Show>),
    /// The key came with another body.
    OtherBody,
}

/// The result of inserting a show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertOutcome {
    /// It was made.
    New,
    /// Its key was used before.
    Kept(KeptAnswer),
}

/// The result of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// There is no such show.
    Missing,
    /// The show, which was so already.
    Kept(Box<Show>),
    /// The show as it is now.
    Replaced(Box<Show>),
    /// The change was not made.
    Refused(Refusal),
}

/// Decides what a change of a show comes to.
pub type Decide<'d> = &'d (dyn Fn(&Show) -> Decision + Send + Sync);

/// A notification that is to be sent now, by whoever has claimed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// What to send.
    pub notification: Notification,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

/// The result of an attempt to send a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// It was delivered.
    Delivered,
    /// It is to be sent again.
    RetryAt {
        /// Not before then.
        at: Timestamp,
        /// The error.
        error: String,
    },
    /// It is no longer sent.
    GivenUp {
        /// The error.
        error: String,
    },
}

/// The state of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationState {
    /// It has not been delivered yet.
    Pending,
    /// It was delivered.
    Delivered,
    /// It is no longer sent.
    GivenUp,
}

impl NotificationState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::GivenUp];

    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Delivered => "DELIVERED",
            Self::GivenUp => "GIVEN_UP",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A notification with its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationRecord {
    /// The notification.
    pub notification: Notification,
    /// Its state.
    pub state: NotificationState,
    /// The number of attempts.
    pub attempts: u32,
    /// When it is sent again, if at all.
    pub next_attempt_at: Option<Timestamp>,
    /// The last error.
    pub last_error: Option<String>,
}

/// What the outbox holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxTotals {
    /// Notifications that have not been delivered yet.
    pub pending: u64,
    /// When the oldest of them occurred; none if there is none.
    pub oldest_pending_at: Option<Timestamp>,
    /// Notifications that are no longer sent.
    pub given_up: u64,
}

/// The database. Every method is one transaction: it takes effect completely or not at all, also if
/// its caller disconnects or the process ends.
#[async_trait]
pub trait CatalogueStore: Send + Sync + 'static {
    /// Keeps a new show with its notifications; once for a key whose
    /// 24 hours are not over at the show's `updated_at`.
    async fn insert(
        &self,
        show: &Show,
        notifications: &[Notification],
        key: Option<&KeyUse>,
    ) -> Result<InsertOutcome, StoreError>;

    /// What a key was answered, if it is used and its time not over.
    async fn kept_answer(&self, key: &KeyUse, now: Timestamp) -> Result<Option<KeptAnswer>, StoreError>;

    /// Changes a show as `decide` says, which sees it as no other change leaves
    /// it any more: of two changes at a time, one sees what the other has made.
    async fn change(&self, id: ShowId, decide: Decide<'_>) -> Result<ChangeOutcome, StoreError>;

    /// One show.
    async fn show(&self, id: ShowId) -> Result<Option<Show>, StoreError>;

    /// One page of shows, and how many there are, both of the same moment.
    async fn list(&self, query: &ListQuery) -> Result<Listing, StoreError>;

    /// Claims notifications that are due, the oldest first: nobody else gets them
    /// before `until`. Of each show the oldest pending one only, so that they
    /// are sent in order.
    async fn claim(&self, now: Timestamp, until: Timestamp, count_max: u32) -> Result<Vec<Claim>, StoreError>;

    /// Notes what became of a claim, unless somebody else has claimed it since.
    async fn settle(&self, claim: &Claim, attempted: &AttemptOutcome, now: Timestamp) -> Result<(), StoreError>;

    /// One page of notifications in these states, the newest first, and how many
    /// there are.
    async fn notifications(
        &self,
        states: &[NotificationState],
        page: Page,
    ) -> Result<(Vec<NotificationRecord>, u64), StoreError>;

    /// Retries a notification that was given up. Whether there was one.
    async fn retry_given_up(&self, id: &str, now: Timestamp) -> Result<bool, StoreError>;

    /// Counts the notifications that have not been delivered.
    async fn outbox(&self) -> Result<OutboxTotals, StoreError>;

    /// Forgets keys that are over, and notifications that were delivered before
    /// `delivered_before`.
    async fn sweep(&self, now: Timestamp, delivered_before: Timestamp) -> Result<(), StoreError>;
}
