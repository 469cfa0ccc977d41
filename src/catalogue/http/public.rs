//! Routes of the public: list and read events.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::admin::show_id;
use super::failure::{ErrorBody, Failure};
use super::view::{self, PublicEvent, PublicEventPage};
use super::{MountedApi, entity_tag};
use crate::domain::{Audience, ListQuery};

/// List public events
///
/// Events that are `PUBLISHED` or `CANCELLED`, sorted by `startAt`, then by `id`. A page past the
/// end is empty.
#[utoipa::path(
    get, path = "/public/events", operation_id = "listPublicEvents", tag = "Public",
    params(super::openapi::ListParams),
    responses(
        (status = 200, description = "One page of events.", body = PublicEventPage),
        (status = 400, description = "`VALIDATION_ERROR` with every invalid parameter.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn list(State(mounted): State<MountedApi>, uri: Uri) -> Result<Response, Failure> {
    let query = ListQuery::parse(&view::params(&uri), Audience::Public).map_err(Failure::invalid)?;
    let listing = mounted.api.catalogue.list(&query).await?;
    let page = PublicEventPage::new(&listing.shows, query.page, listing.total, mounted.api.catalogue.now());
    Ok(view::response(StatusCode::OK, view::json(&page)?, view::PUBLIC))
}

/// Read a public event
#[utoipa::path(
    get, path = "/public/events/{id}", operation_id = "getPublicEvent", tag = "Public",
    params(("id" = String, Path, description = "The event's UUID.")),
    responses(
        (status = 200, description = "The event.", body = PublicEvent, headers(("ETag" = String, description = "Changes when the answer changes."))),
        (status = 304, description = "The `ETag` equals that of `If-None-Match`."),
        (status = 404, description = "`NOT_FOUND`: there is no such event, or it is a draft.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(mounted): State<MountedApi>,
    id: Result<Path<String>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let show = mounted.api.catalogue.public_show(show_id(id)?).await?;
    let body = view::json(&PublicEvent::new(&show, mounted.api.catalogue.now()))?;
    if let Some(reads) = mounted.api.reads.as_ref().filter(|_| method == Method::GET) {
        reads.count_read(show.id).await;
    }
    let tag = entity_tag::of_bytes(&body);
    if entity_tag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag), (CACHE_CONTROL, view::PUBLIC)]).into_response());
    }
    let mut response = view::response(StatusCode::OK, body, view::PUBLIC);
    response.headers_mut().insert(ETAG, tag);
    Ok(response)
}
