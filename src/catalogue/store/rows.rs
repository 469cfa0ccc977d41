//! Row types and statements that both databases share.

use sqlx::{ColumnIndex, Database, Decode, Encode, QueryBuilder, Row, Type};

use super::{Claim, KeptAnswer, KeyUse, NotificationRecord, NotificationState, OutboxTotals, StoreError};
use crate::domain::{
    CreatedBy, InternalNotes, ListQuery, Location, Notification, NotificationKind, NotificationSubject, Overlap, Show,
    ShowId, Status, Timestamp, Title, Version,
};

/// The columns of a show.
pub(super) const SHOW_COLUMNS: &str =
    "id, title, start_at, end_at, location, status, internal_notes, created_by, updated_at, version";

/// A database whose values are text and whole numbers, as far as shows are
/// concerned, and whose ids are read by [`ShowRow::id`].
pub(super) trait ShowRow: Row {
    /// The UUID in a column.
    fn id(&self, column: &'static str) -> Result<ShowId, StoreError>;
}

/// Reads a show.
pub(super) fn show<R>(row: &R) -> Result<Show, StoreError>
where
    R: ShowRow,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = |column: &'static str| row.try_get::<String, _>(column);
    let optional = |column: &'static str| row.try_get::<Option<String>, _>(column);
    let number = |column: &'static str| row.try_get::<i64, _>(column);
    let (notes, created_by) = (optional("internal_notes")?, optional("created_by")?);
    Ok(Show {
        id: row.id("id")?,
        title: Title::parse(&text("title")?).ok_or(StoreError::Corrupt("title"))?,
        start_at: Timestamp::from_millis(number("start_at")?),
        end_at: Timestamp::from_millis(number("end_at")?),
        location: Location::parse(&text("location")?).ok_or(StoreError::Corrupt("location"))?,
        status: Status::parse(&text("status")?).ok_or(StoreError::Corrupt("status"))?,
        internal_notes: notes
            .map(|notes| InternalNotes::parse(&notes).ok_or(StoreError::Corrupt("note")))
            .transpose()?,
        created_by: created_by.map(|name| CreatedBy::parse(&name).ok_or(StoreError::Corrupt("creator"))).transpose()?,
        updated_at: Timestamp::from_millis(number("updated_at")?),
        version: Version::from_number(number("version")?),
    })
}

/// Reads a key's answer: the columns of a show, as it was made, and
/// `fingerprint`.
pub(super) fn kept_answer<R>(row: &R, key: &KeyUse) -> Result<KeptAnswer, StoreError>
where
    R: ShowRow,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    let fingerprint: Vec<u8> = row.try_get("fingerprint")?;
    if fingerprint != key.fingerprint.as_bytes() {
        return Ok(KeptAnswer::OtherBody);
    }
    Ok(KeptAnswer::Same(Box::new(show(row)?)))
}

/// Reads a notification.
pub(super) fn notification<R>(row: &R) -> Result<Notification, StoreError>
where
    R: ShowRow,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let text = |column: &'static str| row.try_get::<String, _>(column);
    let time = |column: &'static str| row.try_get(column).map(Timestamp::from_millis);
    Ok(Notification {
        id: text("id")?,
        show_id: row.id("show_id")?,
        kind: NotificationKind::parse(&text("kind")?).ok_or(StoreError::Corrupt("kind of notification"))?,
        message: text("message")?,
        occurred_at: time("occurred_at")?,
        subject: NotificationSubject {
            title: text("title")?,
            start_at: time("start_at")?,
            end_at: time("end_at")?,
            location: text("location")?,
            status: Status::parse(&text("status")?).ok_or(StoreError::Corrupt("status"))?,
        },
    })
}

/// Reads a notification that was just claimed.
pub(super) fn claim<R>(row: &R) -> Result<Claim, StoreError>
where
    R: ShowRow,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    Ok(Claim { notification: notification(row)?, attempt: attempts(row)? })
}

/// Reads a notification and how far it has come.
pub(super) fn notification_record<R>(row: &R) -> Result<NotificationRecord, StoreError>
where
    R: ShowRow,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> String: Decode<'r, R::Database> + Type<R::Database>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let state: String = row.try_get("state")?;
    let state = NotificationState::parse(&state).ok_or(StoreError::Corrupt("state of a notification"))?;
    let next_attempt_at = Timestamp::from_millis(row.try_get("next_attempt_at")?);
    Ok(NotificationRecord {
        notification: notification(row)?,
        state,
        attempts: attempts(row)?,
        next_attempt_at: (state == NotificationState::Pending).then_some(next_attempt_at),
        last_error: row.try_get("last_error")?,
    })
}

/// Counts the notifications that have not been delivered.
pub(super) const OUTBOX_TOTALS: &str = "SELECT count(*) FILTER (WHERE state = 'PENDING') AS pending, \
     min(occurred_at) FILTER (WHERE state = 'PENDING') AS oldest_pending_at, \
     count(*) FILTER (WHERE state = 'GIVEN_UP') AS given_up \
     FROM notifications WHERE state IN ('PENDING', 'GIVEN_UP')";

/// Reads the totals of the outbox.
pub(super) fn outbox<R>(row: &R) -> Result<OutboxTotals, StoreError>
where
    R: Row,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let count = |column: &'static str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
    let oldest: Option<i64> = row.try_get("oldest_pending_at")?;
    Ok(OutboxTotals {
        pending: count("pending")?,
        oldest_pending_at: oldest.map(Timestamp::from_millis),
        given_up: count("given_up")?,
    })
}

fn attempts<R>(row: &R) -> Result<u32, StoreError>
where
    R: Row,
    for<'c> &'c str: ColumnIndex<R>,
    for<'r> i64: Decode<'r, R::Database> + Type<R::Database>,
{
    let attempts: i64 = row.try_get("attempts")?;
    u32::try_from(attempts).map_err(|_| StoreError::Corrupt("number of attempts"))
}

/// Appends the conditions of a list. `position_of` is the database's function
/// for the place of one text in another: unlike `LIKE`, it knows no wildcards.
pub(super) fn push_conditions<DB>(builder: &mut QueryBuilder<DB>, query: &ListQuery, position_of: &str)
where
    DB: Database,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
{
    builder.push(" WHERE TRUE");
    let Overlap { from, before } = query.overlap;
    if let Some(from) = from {
        builder.push(" AND end_at > ").push_bind(from.millis());
    }
    if let Some(before) = before {
        builder.push(" AND start_at < ").push_bind(before.millis());
    }
    if !query.statuses.is_all() {
        builder.push(" AND status IN (");
        let mut statuses = builder.separated(", ");
        for status in query.statuses.as_slice() {
            statuses.push_bind(status.as_str().to_owned());
        }
        builder.push(")");
    }
    if !query.locations.is_empty() {
        builder.push(" AND (");
        for (place, part) in query.locations.iter().enumerate() {
            builder.push(if place == 0 { "" } else { " OR " }).push(position_of).push("(location_folded, ");
            builder.push_bind(part.as_str().to_owned()).push(") > 0");
        }
        builder.push(")");
    }
}
