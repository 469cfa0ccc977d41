//! Stores shows in a SQLite file. One connection writes and others read: SQLite has one writer at a
//! time, and readers see the last commit (WAL).

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{QueryBuilder, Row as _, Sqlite, SqlitePool, Transaction};

use super::rows::{self, ShowRow};
use super::{
    AttemptOutcome, CatalogueStore, ChangeOutcome, Claim, Decide, InsertOutcome, KeptAnswer, KeyUse,
    NotificationRecord, NotificationState, OutboxTotals, StoreError, migrations,
};
use crate::domain::{
    Decision, FoldedText, IdempotencyKey, ListQuery, Listing, Notification, Page, Show, ShowId, Timestamp,
};

/// Connections that read.
const READERS_MAX: u32 = 4;
/// Longest a statement waits for another process's lock on the file, and a
/// request for a connection.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// A store in one SQLite file. The file belongs to one service at a time.
#[derive(Debug)]
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl ShowRow for SqliteRow {
    fn id(&self, column: &'static str) -> Result<ShowId, StoreError> {
        ShowId::parse(&self.try_get::<String, _>(column)?).ok_or(StoreError::Corrupt("id"))
    }
}

impl SqliteStore {
    /// Opens or creates the file, and applies migrations. Notifications that an earlier service was
    /// sending are due at once.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        make_private_file(path)?;
        // Each commit is synced to disk before it is acknowledged.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(WAIT_MAX);
        let pool = || SqlitePoolOptions::new().acquire_timeout(WAIT_MAX);
        let writer = pool().max_connections(1).connect_with(options.clone()).await?;
        migrations::sqlite().run(&writer).await?;
        sqlx::query("UPDATE notifications SET next_attempt_at = occurred_at WHERE state = 'PENDING'")
            .execute(&writer)
            .await?;
        let readers = pool().max_connections(READERS_MAX).connect_with(options.read_only(true)).await?;
        Ok(Self { writer, readers })
    }

    /// Copies the database in this file to a new file, as of one moment, while a service uses it.
    ///
    /// # Errors
    /// When the file cannot be read, or the copy is there already.
    pub async fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
        make_private_file(to)?;
        let options = SqliteConnectOptions::new().filename(from).create_if_missing(false).busy_timeout(WAIT_MAX);
        let source = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
        // The copy may be a file that is empty.
        let copied = sqlx::query("VACUUM INTO ?").bind(to.to_string_lossy().into_owned()).execute(&source).await;
        source.close().await;
        copied?;
        Ok(())
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

#[async_trait]
impl CatalogueStore for SqliteStore {
    async fn insert(
        &self,
        show: &Show,
        notifications: &[Notification],
        key: Option<&KeyUse>,
    ) -> Result<InsertOutcome, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(key) = key {
            if let Some(kept) = kept_answer(&mut transaction, key, show.updated_at).await? {
                return Ok(InsertOutcome::Kept(kept));
            }
            insert_show(&mut transaction, show).await?;
            insert_key(&mut transaction, key, show).await?;
        } else {
            insert_show(&mut transaction, show).await?;
        }
        insert_notifications(&mut transaction, notifications).await?;
        transaction.commit().await?;
        Ok(InsertOutcome::New)
    }

    async fn kept_answer(&self, key: &KeyUse, now: Timestamp) -> Result<Option<KeptAnswer>, StoreError> {
        let mut transaction = self.readers.begin().await?;
        kept_answer(&mut transaction, key, now).await
    }

    async fn change(&self, id: ShowId, decide: Decide<'_>) -> Result<ChangeOutcome, StoreError> {
        let mut transaction = self.begin().await?;
        let mut select = select_shows(" WHERE id = ");
        let row = select.push_bind(id.to_string()).build().fetch_optional(&mut *transaction).await?;
        let Some(row) = row else { return Ok(ChangeOutcome::Missing) };
        let show = rows::show(&row)?;
        match decide(&show) {
            Decision::Keep => Ok(ChangeOutcome::Kept(Box::new(show))),
            Decision::Refuse(refusal) => Ok(ChangeOutcome::Refused(refusal)),
            Decision::Replace { show: changed, notifications } => {
                let updated = sqlx::query(
                    "UPDATE shows SET status = ?, internal_notes = ?, updated_at = ?, version = ? \
                     WHERE id = ? AND version = ?",
                )
                .bind(changed.status.as_str())
                .bind(changed.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()))
                .bind(changed.updated_at.millis())
                .bind(changed.version.number())
                .bind(id.to_string())
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
        let row = select.push_bind(id.to_string()).build().fetch_optional(&self.readers).await?;
        row.as_ref().map(rows::show).transpose()
    }

    async fn list(&self, query: &ListQuery) -> Result<Listing, StoreError> {
        let mut transaction = self.readers.begin().await?;
        let mut count = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM shows");
        rows::push_conditions(&mut count, query, "instr");
        let total: i64 = count.build_query_scalar().fetch_one(&mut *transaction).await?;
        let mut select = select_shows("");
        rows::push_conditions(&mut select, query, "instr");
        select.push(" ORDER BY start_at, id LIMIT ").push_bind(i64::from(query.page.limit));
        select.push(" OFFSET ").push_bind(query.page.offset());
        let found = select.build().fetch_all(&mut *transaction).await?;
        let shows = found.iter().map(rows::show).collect::<Result<_, _>>()?;
        Ok(Listing { shows, total: total.unsigned_abs() })
    }

    async fn claim(&self, now: Timestamp, until: Timestamp, count_max: u32) -> Result<Vec<Claim>, StoreError> {
        let mut transaction = self.begin().await?;
        let claimed = sqlx::query(
            "UPDATE notifications SET attempts = attempts + 1, next_attempt_at = ?1 WHERE position IN ( \
                SELECT position FROM notifications AS due \
                WHERE state = 'PENDING' AND next_attempt_at <= ?2 AND NOT EXISTS ( \
                    SELECT 1 FROM notifications AS earlier \
                    WHERE earlier.state = 'PENDING' AND earlier.show_id = due.show_id \
                        AND earlier.position < due.position) \
                ORDER BY position LIMIT ?3) \
             RETURNING *",
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
            "UPDATE notifications SET state = ?, next_attempt_at = ?, last_error = ?, settled_at = ? \
             WHERE id = ? AND state = 'PENDING' AND attempts = ?",
        )
        .bind(state.as_str())
        .bind(next.millis())
        .bind(error)
        .bind((state != NotificationState::Pending).then_some(now.millis()))
        .bind(claim.notification.id.clone())
        .bind(i64::from(claim.attempt))
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    async fn notifications(
        &self,
        states: &[NotificationState],
        page: Page,
    ) -> Result<(Vec<NotificationRecord>, u64), StoreError> {
        let mut transaction = self.readers.begin().await?;
        let mut count = QueryBuilder::<Sqlite>::new("SELECT count(*) FROM notifications WHERE state IN (");
        push_states(&mut count, states);
        let total: i64 = count.build_query_scalar().fetch_one(&mut *transaction).await?;
        let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM notifications WHERE state IN (");
        push_states(&mut select, states);
        select.push(" ORDER BY position DESC LIMIT ").push_bind(i64::from(page.limit));
        select.push(" OFFSET ").push_bind(page.offset());
        let found = select.build().fetch_all(&mut *transaction).await?;
        let records = found.iter().map(rows::notification_record).collect::<Result<_, _>>()?;
        Ok((records, total.unsigned_abs()))
    }

    async fn retry_given_up(&self, id: &str, now: Timestamp) -> Result<bool, StoreError> {
        let retried = sqlx::query(
            "UPDATE notifications SET state = 'PENDING', attempts = 0, next_attempt_at = ?, settled_at = NULL \
             WHERE id = ? AND state = 'GIVEN_UP'",
        )
        .bind(now.millis())
        .bind(id.to_owned())
        .execute(&self.writer)
        .await?;
        Ok(retried.rows_affected() == 1)
    }

    async fn outbox(&self) -> Result<OutboxTotals, StoreError> {
        rows::outbox(&sqlx::query(rows::OUTBOX_TOTALS).fetch_one(&self.readers).await?)
    }

    async fn sweep(&self, now: Timestamp, delivered_before: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE expires_at <= ?")
            .bind(now.millis())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("DELETE FROM notifications WHERE state = 'DELIVERED' AND settled_at < ?")
            .bind(delivered_before.millis())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }
}

/// Makes the file, if there is none, for its owner only: SQLite would let everybody
/// read it. (Its log and index have the permissions of the file.)
fn make_private_file(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    made.map(drop).map_err(|error| StoreError::Database(sqlx::Error::Io(error)))
}

fn select_shows(rest: &str) -> QueryBuilder<Sqlite> {
    QueryBuilder::new(format!("SELECT {} FROM shows{rest}", rows::SHOW_COLUMNS))
}

fn push_states(builder: &mut QueryBuilder<Sqlite>, states: &[NotificationState]) {
    let mut separated = builder.separated(", ");
    for state in states {
        separated.push_bind(state.as_str());
    }
    builder.push(")");
}

async fn insert_show(transaction: &mut Transaction<'static, Sqlite>, show: &Show) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO shows (id, title, start_at, end_at, location, location_folded, status, internal_notes, \
         created_by, updated_at, version) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(show.id.to_string())
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

async fn insert_key(
    transaction: &mut Transaction<'static, Sqlite>,
    key: &KeyUse,
    show: &Show,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency_keys \
         (key, fingerprint, show_id, status, internal_notes, updated_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.key.as_str().to_owned())
    .bind(key.fingerprint.as_bytes().to_vec())
    .bind(show.id.to_string())
    .bind(show.status.as_str())
    .bind(show.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()))
    .bind(show.updated_at.millis())
    .bind(IdempotencyKey::expires_at(show.updated_at).millis())
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn kept_answer(
    transaction: &mut Transaction<'static, Sqlite>,
    key: &KeyUse,
    now: Timestamp,
) -> Result<Option<KeptAnswer>, StoreError> {
    let row = sqlx::query(
        "SELECT fingerprint, id, title, start_at, end_at, location, used.status, used.internal_notes, created_by, \
         used.updated_at, 1 AS version FROM idempotency_keys AS used JOIN shows ON id = show_id \
         WHERE key = ? AND expires_at > ?",
    )
    .bind(key.key.as_str().to_owned())
    .bind(now.millis())
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(|row| rows::kept_answer(&row, key)).transpose()
}

async fn insert_notifications(
    transaction: &mut Transaction<'static, Sqlite>,
    notifications: &[Notification],
) -> Result<(), StoreError> {
    for notification in notifications {
        sqlx::query(
            "INSERT INTO notifications (id, show_id, kind, message, occurred_at, title, start_at, end_at, location, \
             status, next_attempt_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(notification.id.clone())
        .bind(notification.show_id.to_string())
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

/// Whether an error may be over soon, by SQLite's result code: `SQLITE_BUSY`,
/// `SQLITE_LOCKED`, `SQLITE_NOMEM`, `SQLITE_FULL`, and their kin.
pub(super) fn is_temporary(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 13) && code < 1 << 13)
}
