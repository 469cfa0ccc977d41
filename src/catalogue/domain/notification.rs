//! Notifications about changes of a show.

use uuid::Uuid;

use super::show::{Show, ShowId};
use super::status::Status;
use super::timestamp::Timestamp;

/// The kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotificationKind {
    /// A show was created.
    Created,
    /// It was published.
    Published,
    /// It was cancelled.
    Cancelled,
}

impl NotificationKind {
    /// The notification about a show that gets a status.
    #[must_use]
    pub const fn of_status(status: Status) -> Option<Self> {
        match status {
            Status::Draft => None,
            Status::Published => Some(Self::Published),
            Status::Cancelled => Some(Self::Cancelled),
        }
    }

    /// Its name in a webhook's `type`, and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "event.created",
            Self::Published => "event.published",
            Self::Cancelled => "event.cancelled",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Created, Self::Published, Self::Cancelled].into_iter().find(|kind| kind.as_str() == text)
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Created => "New event created",
            Self::Published => "Event published",
            Self::Cancelled => "Event cancelled",
        }
    }
}

/// A notification. Its id stays the same however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The `webhook-id`.
    pub id: String,
    /// Which show it is about.
    pub show_id: ShowId,
    /// The kind of change.
    pub kind: NotificationKind,
    /// The message, with the title.
    pub message: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The public fields of the show at that time, and its status.
    pub subject: NotificationSubject,
}

/// The fields of the show that a receiver gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotificationSubject {
    /// Its title.
    pub title: String,
    /// The start.
    pub start_at: Timestamp,
    /// The end.
    pub end_at: Timestamp,
    /// The location.
    pub location: String,
    /// Its status.
    pub status: Status,
}

impl Notification {
    /// Makes the notification about a show.
    #[must_use]
    pub fn about(show: &Show, kind: NotificationKind, now: Timestamp) -> Self {
        Self {
            id: format!("msg_{}", Uuid::now_v7().simple()),
            show_id: show.id,
            kind,
            message: format!("{}: {}", kind.sentence(), show.title.as_str()),
            occurred_at: now,
            subject: NotificationSubject {
                title: show.title.as_str().to_owned(),
                start_at: show.start_at,
                end_at: show.end_at,
                location: show.location.as_str().to_owned(),
                status: show.status,
            },
        }
    }
}
