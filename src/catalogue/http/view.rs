//! JSON forms of shows. Public answers have a separate type, so that a new private field cannot become
//! part of them.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::failure::Failure;
use crate::domain::{Page, Show, Timestamp};

/// Answers for administrators must not be cached.
pub(super) const PRIVATE: HeaderValue = HeaderValue::from_static("no-store");
/// Public answers can be cached, and must be revalidated each time, since a show may have been
/// cancelled.
pub(super) const PUBLIC: HeaderValue = HeaderValue::from_static("public, no-cache");

/// An event, for administrators.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    /// Its id, a UUID.
    #[schema(example = "5a0c3a44-3b0f-4a27-9d0e-0f6f4f2f5d11")]
    id: String,
    /// The title.
    #[schema(example = "Hamlet")]
    title: String,
    /// The start, in UTC.
    #[schema(example = "2030-05-17T19:30:00.000Z")]
    start_at: String,
    /// The end, in UTC.
    #[schema(example = "2030-05-17T22:00:00.000Z")]
    end_at: String,
    /// The location.
    #[schema(example = "Globe Theatre, London")]
    location: String,
    /// `DRAFT`, `PUBLISHED` or `CANCELLED`.
    #[schema(example = "DRAFT")]
    status: &'static str,
    /// Private notes.
    #[schema(example = "Waiting for the fire brigade.")]
    internal_notes: Option<String>,
    /// The creator. Private.
    #[schema(example = "ophelia@example.org")]
    created_by: Option<String>,
    /// When it was created or last changed. Private.
    #[schema(example = "2030-01-07T09:12:44.120Z")]
    updated_at: String,
}

impl From<&Show> for Event {
    fn from(show: &Show) -> Self {
        Self {
            id: show.id.to_string(),
            title: show.title.as_str().to_owned(),
            start_at: show.start_at.to_string(),
            end_at: show.end_at.to_string(),
            location: show.location.as_str().to_owned(),
            status: show.status.as_str(),
            internal_notes: show.internal_notes.as_ref().map(|notes| notes.as_str().to_owned()),
            created_by: show.created_by.as_ref().map(|name| name.as_str().to_owned()),
            updated_at: show.updated_at.to_string(),
        }
    }
}

/// An event, for the public.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PublicEvent {
    /// Its id, a UUID.
    #[schema(example = "5a0c3a44-3b0f-4a27-9d0e-0f6f4f2f5d11")]
    id: String,
    /// The title.
    #[schema(example = "Hamlet")]
    title: String,
    /// The start, in UTC.
    #[schema(example = "2030-05-17T19:30:00.000Z")]
    start_at: String,
    /// The end, in UTC.
    #[schema(example = "2030-05-17T22:00:00.000Z")]
    end_at: String,
    /// The location.
    #[schema(example = "Globe Theatre, London")]
    location: String,
    /// `PUBLISHED` or `CANCELLED`.
    #[schema(example = "PUBLISHED")]
    status: &'static str,
    /// Whether it starts after the time of this answer.
    is_upcoming: bool,
}

impl PublicEvent {
    pub(super) fn new(show: &Show, now: Timestamp) -> Self {
        Self {
            id: show.id.to_string(),
            title: show.title.as_str().to_owned(),
            start_at: show.start_at.to_string(),
            end_at: show.end_at.to_string(),
            location: show.location.as_str().to_owned(),
            status: show.status.as_str(),
            is_upcoming: show.is_upcoming(now),
        }
    }
}

/// Events, by start and then by id.
#[derive(Serialize, ToSchema)]
pub(super) struct EventPage {
    /// The items of the page.
    events: Vec<Event>,
    pagination: Pagination,
}

/// Public events, by start and then by id.
#[derive(Serialize, ToSchema)]
pub(super) struct PublicEventPage {
    /// The items of the page.
    events: Vec<PublicEvent>,
    pagination: Pagination,
}

impl EventPage {
    pub(super) fn new(shows: &[Show], page: Page, total: u64) -> Self {
        Self { events: shows.iter().map(Event::from).collect(), pagination: Pagination::new(page, total) }
    }
}

impl PublicEventPage {
    pub(super) fn new(shows: &[Show], page: Page, total: u64, now: Timestamp) -> Self {
        let events = shows.iter().map(|show| PublicEvent::new(show, now)).collect();
        Self { events, pagination: Pagination::new(page, total) }
    }
}

/// The position of a page.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pagination {
    /// The page, from 1.
    page: u64,
    /// Items on a page.
    limit: u32,
    /// Items on all pages.
    total: u64,
    /// Pages.
    total_pages: u64,
}

impl Pagination {
    pub(super) fn new(page: Page, total: u64) -> Self {
        Self { page: page.number, limit: page.limit, total, total_pages: page.total_pages(total) }
    }
}

/// A value as JSON.
pub(super) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "could not write an answer");
        Failure::internal()
    })
}

/// JSON bytes as a response.
pub(super) fn response(status: StatusCode, body: Vec<u8>, caching: HeaderValue) -> Response {
    let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json")), (CACHE_CONTROL, caching)];
    (status, headers, body).into_response()
}

/// The parameters of a query string. Those that are no UTF-8 have replacement
/// characters.
pub(super) fn params(uri: &Uri) -> Vec<(String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}
