//! Routes that list notifications and retry those that were given up.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::MountedApi;
use super::failure::{ErrorBody, Failure};
use super::view::{self, Pagination};
use crate::domain::{FieldFault, Page};
use crate::store::{NotificationRecord, NotificationState};

/// Bytes of a notification's id.
const ID_BYTES: usize = "msg_".len() + 32;

/// A notification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Notification {
    /// Its id, which is also its `webhook-id`.
    #[schema(example = "msg_0192f0c12b3c7d4e8f5061728394a5b6")]
    id: String,
    /// The event.
    event_id: String,
    /// The kind: `event.created`, `event.published` or `event.cancelled`.
    #[schema(example = "event.published")]
    r#type: &'static str,
    /// The message.
    #[schema(example = "Event published: Hamlet")]
    message: String,
    /// When it happened.
    occurred_at: String,
    /// `PENDING`, `DELIVERED` or `GIVEN_UP`.
    #[schema(example = "GIVEN_UP")]
    state: &'static str,
    /// The number of attempts.
    attempts: u32,
    /// When it is sent again.
    next_attempt_at: Option<String>,
    /// The last error.
    last_error: Option<String>,
}

/// Notifications, the newest first.
#[derive(Serialize, ToSchema)]
pub(super) struct NotificationPage {
    /// The items of the page.
    notifications: Vec<Notification>,
    pagination: Pagination,
}

impl From<NotificationRecord> for Notification {
    fn from(record: NotificationRecord) -> Self {
        let notification = record.notification;
        Self {
            id: notification.id,
            event_id: notification.show_id.to_string(),
            r#type: notification.kind.as_str(),
            message: notification.message,
            occurred_at: notification.occurred_at.to_string(),
            state: record.state.as_str(),
            attempts: record.attempts,
            next_attempt_at: record.next_attempt_at.map(|at| at.to_string()),
            last_error: record.last_error,
        }
    }
}

/// List notifications
///
/// The newest first. Delivered notifications are kept for a week.
#[utoipa::path(
    get, path = "/notifications", operation_id = "listNotifications", tag = "Administration", security(("token" = [])),
    params(
        ("state" = Option<String>, Query, description = "Any of `PENDING`, `DELIVERED` and `GIVEN_UP`, separated by commas."),
        ("page" = Option<u64>, Query, description = "From 1."),
        ("limit" = Option<u32>, Query, description = "1 to 100; default 20."),
    ),
    responses(
        (status = 200, description = "One page of notifications.", body = NotificationPage),
        (status = 400, description = "`VALIDATION_ERROR` with every invalid parameter.", body = ErrorBody),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn list(State(mounted): State<MountedApi>, uri: Uri) -> Result<Response, Failure> {
    let params = view::params(&uri);
    let page = Page::parse(&params);
    let states = states(&params);
    let (page, states) = match (page, states) {
        (Ok(page), Ok(states)) => (page, states),
        (page, states) => {
            let faults = [states.err(), page.err()].into_iter().flatten().flatten().collect();
            return Err(Failure::invalid(faults));
        }
    };
    let (records, total) = mounted.api.catalogue.notifications(&states, page).await?;
    let notifications = records.into_iter().map(Notification::from).collect();
    let page = NotificationPage { notifications, pagination: Pagination::new(page, total) };
    Ok(view::response(StatusCode::OK, view::json(&page)?, view::PRIVATE))
}

/// Retry a notification that was given up
#[utoipa::path(
    post, path = "/notifications/{id}/retry", operation_id = "retryNotification", tag = "Administration", security(("token" = [])),
    params(("id" = String, Path, description = "The notification's id.")),
    responses(
        (status = 202, description = "The notification is sent again."),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 404, description = "`NOT_FOUND`: there is no such notification, or it was not given up.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn retry(
    State(mounted): State<MountedApi>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let is_id = |id: &str| id.len() == ID_BYTES && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let Path(id) = id.map_err(|_| Failure::no_such_path())?;
    if !is_id(&id) {
        return Err(Failure::no_such_notification());
    }
    mounted.api.catalogue.retry_notification(&id).await.map_err(|error| match error {
        crate::CatalogueError::NotFound => Failure::no_such_notification(),
        other => other.into(),
    })?;
    Ok(StatusCode::ACCEPTED.into_response())
}

fn states(params: &[(String, String)]) -> Result<Vec<NotificationState>, Vec<FieldFault>> {
    const NAME: &str = "state";
    let given: Vec<&str> = params.iter().filter(|(name, _)| name == NAME).map(|(_, value)| value.as_str()).collect();
    if given.is_empty() {
        return Ok(NotificationState::ALL.to_vec());
    }
    let names = given.iter().flat_map(|value| value.split(',')).map(str::trim);
    names.map(NotificationState::parse).collect::<Option<_>>().ok_or_else(|| {
        vec![FieldFault::new(NAME, "must be one or more of PENDING, DELIVERED and GIVEN_UP, with commas between them")]
    })
}
