//! Stores shows in PostgreSQL, for any number of services at a time. Row locks order concurrent changes,
//! and claims decide which service sends a notification.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::{ConnectOptions as _, Executor as _, PgPool, Postgres, QueryBuilder, Row as _, Transaction};
use uuid::Uuid;

use super::rows::{self, ShowRow};
use super::{
    AttemptOutcome, CatalogueStore, ChangeOutcome, Claim, Decide, InsertOutcome, KeptAnswer, KeyUse,
    NotificationRecord, NotificationState, OutboxTotals, StoreError, migrations,
};
use crate::domain::{
    Decision, FoldedText, IdempotencyKey, ListQuery, Listing, Notification, Page, Show, ShowId, Timestamp,
};

/// Connections at a time.
const CONNECTIONS_MAX: u32 = 10;
/// Longest a request waits for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest a statement may take, locks included, and a transaction may be left
/// alone.
const LIMITS: &str = "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s'";
/// Attempts to use a key whose 24 hours end just then.
const KEY_ATTEMPTS_MAX: u32 = 3;

/// A store in a PostgreSQL database. Any number of services can use the database at a time.
#[derive(Debug)]
pub struct PostgresStore {
    pool: PgPool,
}

impl ShowRow for PgRow {
    fn id(&self, column: &'static str) -> Result<ShowId, StoreError> {
        Ok(ShowId::from_uuid(self.try_get::<Uuid, _>(column)?))
    }
}

impl PostgresStore {
    /// Connects to the server at a `postgres://` URL and applies migrations.
    ///
    /// # Errors
    /// If the URL is invalid or the server cannot be reached.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url.parse()?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(WAIT_MAX)
            .after_connect(|connection, _| Box::pin(async move { connection.execute(LIMITS).await.map(drop) }))
            .connect_with(options.application_name("tallyhouse"))
            .await?;
        migrations::postgres().run(&pool).await?;
        Ok(Self { pool })
    }

    /// Asks the server at a `postgres://` URL for its version. Changes nothing.
    ///
    /// # Errors
    /// If the URL is invalid or the server cannot be reached.
    pub async fn version(url: &str) -> Result<String, StoreError> {
        let options: PgConnectOptions = url.parse()?;
        let connect = async {
            let mut connection = options.application_name("tallyhouse").connect().await?;
            sqlx::query_scalar("SHOW server_version").fetch_one(&mut connection).await
        };
        Ok(tokio::time::timeout(WAIT_MAX, connect).await.map_err(|_| sqlx::Error::PoolTimedOut)??)
    }

    /// Reads several statements' worth of one moment.
    async fn begin_reading(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        Ok(self.pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// None when another call has used the key meanwhile.
    async fn try_insert(
        &self,
        show: &Show,
        notifications: &[Notification],
        key: Option<&KeyUse>,
    ) -> Result<Option<InsertOutcome>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        if let Some(key) = key
            && let Some(kept) = kept_answer(&mut transaction, key, show.updated_at).await?
        {
            return Ok(Some(InsertOutcome::Kept(kept)));
        }
        insert_show(&mut transaction, show).await?;
        if let Some(key) = key
            && !insert_key(&mut transaction, key, show).await?
        {
            return Ok(None);
        }
        insert_notifications(&mut transaction, notifications).await?;
        transaction.commit().await?;
        Ok(Some(InsertOutcome::New))
    }
}

#[async_trait]
impl CatalogueStore for PostgresStore {
    async fn insert(
        &self,
        show: &Show,
        notifications: &[Notification],
        key: Option<&KeyUse>,
    ) -> Result<InsertOutcome, StoreError> {
        for _ in 0..KEY_ATTEMPTS_MAX {
            if let Some(inserted) = self.try_insert(show, notifications, key).await? {
                return Ok(inserted);
            }
        }
        Err(StoreError::Corrupt("idempotency key"))
    }

    async fn kept_answer(&self, key: &KeyUse, now: Timestamp) -> Result<Option<KeptAnswer>, StoreError> {
        let mut transaction = self.begin_reading().await?;
        kept_answer(&mut transaction, key, now).await
    }

    async fn change(&self, id: ShowId, decide: Decide<'_>) -> Result<ChangeOutcome, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let mut select = select_shows(" WHERE id = ");
        let row = select.push_bind(id.uuid()).push(" FOR UPDATE").build().fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(ChangeOutcome::Missing) };
        let show = rows::show(&row)?;
        match decide(&show) {
            Decision::Keep => Ok(ChangeOutcome::Kept(Box::new(show))),
            Decision::Refuse(refusal) => Ok(ChangeOutcome::Refused(refusal)),
            Decision::Replace { show: changed, notifications } => {
                let updated = sqlx::query(
                    "UPDATE shows SET status = $1, internal_notes = $2, updated_at = $3, version = $4 \
                     WHERE id = $5 AND version = $6",
                )
                .bind(changed.status.as_str())
                .bind(changed.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()))
                .bind(changed.updated_at.millis())
                .bind(changed.version.number())
                .bind(id.uuid())
                .bind(show.version.number())
                .execute(&mut *transaction)
                .await?;
                if updated.rows_affected() != 1 {
                    return Err(StoreError::Corrupt("version"));
                }
                insert_notifications(&mut transaction, &notifications).await?;
                transaction.commit().await?;
                Ok(ChangeOutcome::Replaced(changed))
            }
        }
    }

    async fn show(&self, id: ShowId) -> Result<Option<Show>, StoreError> {
        let mut select = select_shows(" WHERE id = ");
        let row = select.push_bind(id.uuid()).build().fetch_optional(&self.pool).await?;
        row.as_ref().map(rows::show).transpose()
    }

    async fn list(&self, query: &ListQuery) -> Result<Listing, StoreError> {
        let mut transaction = self.begin_reading().await?;
        let mut count = QueryBuilder::<Postgres>::new("SELECT count(*) FROM shows");
        rows::push_conditions(&mut count, query, "strpos");
        let total: i64 = count.build_query_scalar().fetch_one(&mut *transaction).await?;
        let mut select = select_shows("");
        rows::push_conditions(&mut select, query, "strpos");
        select.push(" ORDER BY start_at, id LIMIT ").push_bind(i64::from(query.page.limit));
        select.push(" OFFSET ").push_bind(query.page.offset());
        let found = select.build().fetch_all(&mut *transaction).await?;
        let shows = found.iter().map(rows::show).collect::<Result<_, _>>()?;
        Ok(Listing { shows, total: total.unsigned_abs() })
    }

    async fn claim(&self, now: Timestamp, until: Timestamp, count_max: u32) -> Result<Vec<Claim>, StoreError> {
        let mut transaction = self.pool.begin().await?;
        let claimed = sqlx::query(
            "WITH claimed AS ( \
                SELECT position FROM notifications AS due \
                WHERE state = 'PENDING' AND next_attempt_at <= $2 AND NOT EXISTS ( \
                    SELECT 1 FROM notifications AS earlier \
                    WHERE earlier.state = 'PENDING' AND earlier.show_id = due.show_id \
                        AND earlier.position < due.position) \
                ORDER BY position LIMIT $3 FOR UPDATE OF due SKIP LOCKED) \
             UPDATE notifications SET attempts = attempts + 1, next_attempt_at = $1 FROM claimed \
             WHERE notifications.position = claimed.position \
             RETURNING notifications.*",
        )
        .bind(until.millis())
        .bind(now.millis())
        .bind(i64::from(count_max))
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        claimed.iter().map(rows::claim).collect()
    }

    async fn settle(&self, claim: &Claim, attempted: &AttemptOutcome, now: Timestamp) -> Result<(), StoreError> {
        let (state, next, error) = match attempted {
            AttemptOutcome::Delivered => (NotificationState::Delivered, now, None),
            AttemptOutcome::RetryAt { at, error } => (NotificationState::Pending, *at, Some(error.clone())),
            AttemptOutcome::GivenUp { error } => (NotificationState::GivenUp, now, Some(error.clone())),
        };
        sqlx::query(
            "UPDATE notifications SET state = $1, next_attempt_at = $2, last_error = $3, settled_at = $4 \
             WHERE id = $5 AND state = 'PENDING' AND attempts = $6",
        )
        .bind(state.as_str())
        .bind(next.millis())
        .bind(error)
        .bind((state != NotificationState::Pending).then_some(now.millis()))
        .bind(claim.notification.id.clone())
        .bind(i64::from(claim.attempt))
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    async fn notifications(
        &self,
        states: &[NotificationState],
        page: Page,
    ) -> Result<(Vec<NotificationRecord>, u64), StoreError> {
        let mut transaction = self.begin_reading().await?;
        let mut count = QueryBuilder::<Postgres>::new("SELECT count(*) FROM notifications WHERE state IN (");
        push_states(&mut count, states);
        let total: i64 = count.build_query_scalar().fetch_one(&mut *transaction).await?;
        let mut select = QueryBuilder::<Postgres>::new("SELECT * FROM notifications WHERE state IN (");
        push_states(&mut select, states);
        select.push(" ORDER BY position DESC LIMIT ").push_bind(i64::from(page.limit));
        select.push(" OFFSET ").push_bind(page.offset());
        let found = select.build().fetch_all(&mut *transaction).await?;
        let records = found.iter().map(rows::notification_record).collect::<Result<_, _>>()?;
        Ok((records, total.unsigned_abs()))
    }

    async fn retry_given_up(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let retried = sqlx::query(
            "UPDATE notifications SET state = 'PENDING', attempts = 0, next_attempt_at = $1, settled_at = NULL \
             WHERE id = $2 AND state = 'GIVEN_UP'",
        )
        .bind(now.millis())
        .bind(id.to_owned())
        .execute(&self.pool)
        .await?;
        Ok(retried.rows_affected() == 1)
    }

    async fn outbox(&self) -> Result<OutboxTotals, StoreError> {
        rows::outbox(&sqlx::query(rows::OUTBOX_TOTALS).fetch_one(&self.pool).await?)
    }

    async fn sweep(&self, now: Timestamp, delivered_before: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= $1")
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM notifications WHERE state = 'DELIVERED' AND settled_at < $1")
            .bind(delivered_before.millis())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

fn select_shows(rest: &str) -> QueryBuilder<Postgres> {
    QueryBuilder::new(format!("SELECT {} FROM shows{rest}", rows::SHOW_COLUMNS))
}

fn push_states(builder: &mut QueryBuilder<Postgres>, states: &[NotificationState]) {
    let mut separated = builder.separated(", ");
    for state in states {
        separated.push_bind(state.as_str());
    }
    builder.push(")");
}

async fn insert_show(transaction: &mut Transaction<'static, Postgres>, show: &Show) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO shows (id, title, start_at, end_at, location, location_folded, status, internal_notes, \
         created_by, updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(show.id.uuid())
    .bind(show.title.as_str().to_owned())
    .bind(show.start_at.millis())
    .bind(show.end_at.millis())
    .bind(show.location.as_str().to_owned())
    .bind(FoldedText::new(show.location.as_str()).as_str().to_owned())
    .bind(show.status.as_str())
    .bind(show.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()))
    .bind(show.created_by.as_ref().map(|name| name.as_str().to_owned()))
    .bind(show.updated_at.millis())
    .bind(show.version.number())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Whether the key could be used.
async fn insert_key(
    transaction: &mut Transaction<'static, Postgres>,
    key: &KeyUse,
    show: &Show,
) -> Result<bool, StoreError> {
    // One whose time is over is as good as none.
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys AS used \
         (key, fingerprint, show_id, status, internal_notes, updated_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, show_id = excluded.show_id, \
         status = excluded.status, internal_notes = excluded.internal_notes, updated_at = excluded.updated_at, \
         expires_at = excluded.expires_at WHERE used.expires_at <= excluded.updated_at",
    )
    .bind(key.key.as_str().to_owned())
    .bind(key.fingerprint.as_bytes().to_vec())
    .bind(show.id.uuid())
    .bind(show.status.as_str())
    .bind(show.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()))
    .bind(show.updated_at.millis())
    .bind(IdempotencyKey::expires_at(show.updated_at).millis())
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn kept_answer(
    transaction: &mut Transaction<'static, Postgres>,
    key: &KeyUse,
    now: Timestamp,
) -> Result<Option<KeptAnswer>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, id, title, start_at, end_at, location, used.status, used.internal_notes, created_by, \
         used.updated_at, 1::BIGINT AS version FROM idempotency_keys AS used JOIN shows ON id = show_id \
         WHERE key = $1 AND expires_at > $2",
    )
    .bind(key.key.as_str().to_owned())
    .bind(now.millis())
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| rows::kept_answer(&row, key)).transpose()
}

async fn insert_notifications(
    transaction: &mut Transaction<'static, Postgres>,
    notifications: &[Notification],
) -> Result<(), StoreError> {
    for notification in notifications {
        sqlx::query(
            "INSERT INTO notifications (id, show_id, kind, message, occurred_at, title, start_at, end_at, location, \
             status, next_attempt_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(notification.id.clone())
        .bind(notification.show_id.uuid())
        .bind(notification.kind.as_str())
        .bind(notification.message.clone())
        .bind(notification.occurred_at.millis())
        .bind(notification.subject.title.clone())
        .bind(notification.subject.start_at.millis())
        .bind(notification.subject.end_at.millis())
        .bind(notification.subject.location.clone())
        .bind(notification.subject.status.as_str())
        .bind(notification.occurred_at.millis())
        .execute(&mut **transaction)
        .await?;
    }
    Ok(())
}

/// Whether an error may be over soon, by its SQLSTATE: connections, rolled back
/// transactions, want of resources, locks, and what operators do.
pub(super) fn is_temporary(code: &str) -> bool {
    code.len() == 5 && ["08", "40", "53", "55", "57"].iter().any(|class| code.starts_with(class))
}
