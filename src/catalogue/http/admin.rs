//! Routes of administrators: create, change, list and read events.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ETAG, HeaderName, HeaderValue, LOCATION};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use super::failure::{ErrorBody, Failure};
use super::view::{self, Event, EventPage};
use super::{MountedApi, body, entity_tag, json};
use crate::domain::{Audience, FieldFault, IdempotencyKey, ListQuery, Show, ShowId};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Create an event
///
/// The event must not start in the past. Sends the notification "New event created: …", and that of
/// its status if it is created as published or cancelled. With an `Idempotency-Key`, you can repeat
/// the call for 24 hours: the same key with the same body returns the first answer, also while the
/// first call runs and after a restart. Errors are not kept.
#[utoipa::path(
    post, path = "/events", operation_id = "createEvent", tag = "Administration", security(("token" = [])),
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters.")),
    request_body(content = super::openapi::NewEvent, description = "Unknown fields are refused."),
    responses(
        (status = 201, description = "The event.", body = Event, headers(
            ("Location" = String, description = "Its address."),
            ("ETag" = String, description = "Its version."),
            ("Idempotency-Replayed" = String, description = "`true` if this is the stored answer of an earlier call with the key."),
        )),
        (status = 400, description = "`VALIDATION_ERROR` with every invalid field, or `INVALID_JSON`.", body = ErrorBody),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 408, description = "`REQUEST_TIMEOUT`: the body did not arrive in time.", body = ErrorBody),
        (status = 413, description = "`TOO_LARGE`: the body is too large.", body = ErrorBody),
        (status = 415, description = "`UNSUPPORTED_MEDIA_TYPE`: the body is not `application/json`.", body = ErrorBody),
        (status = 422, description = "`IDEMPOTENCY_KEY_REUSED`: the key was used with another body before.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn create(State(mounted): State<MountedApi>, request: Request) -> Result<Response, Failure> {
    let key = idempotency_key(request.headers());
    let bytes = body::read(request, &mounted.api.settings).await?;
    let fields = json::read_object(&bytes)?;
    let created = mounted.api.catalogue.create(fields, key?).await?;
    let mut response = show_response(StatusCode::CREATED, &created.show)?;
    let location = format!("{}/events/{}", mounted.prefix, created.show.id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    if created.is_replayed {
        response.headers_mut().insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Change an event
///
/// You can change `status` and `internalNotes` only. A draft can be published or cancelled, a
/// published event can be cancelled. Setting a current value changes nothing and sends no
/// notification. With `If-Match` and an `ETag`, the change is refused if the event has changed
/// since.
#[utoipa::path(
    patch, path = "/events/{id}", operation_id = "changeEvent", tag = "Administration", security(("token" = [])),
    params(
        ("id" = String, Path, description = "The event's UUID."),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the event must have."),
    ),
    request_body(content = super::openapi::EventChange, description = "Other fields are refused. An empty object changes nothing."),
    responses(
        (status = 200, description = "The event.", body = Event, headers(("ETag" = String, description = "Its version."))),
        (status = 400, description = "`VALIDATION_ERROR`, `INVALID_JSON`, or `INVALID_STATUS_TRANSITION`.", body = ErrorBody),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 404, description = "`NOT_FOUND`: there is no such event.", body = ErrorBody),
        (status = 408, description = "`REQUEST_TIMEOUT`: the body did not arrive in time.", body = ErrorBody),
        (status = 412, description = "`PRECONDITION_FAILED`: the event does not have that `ETag`.", body = ErrorBody),
        (status = 413, description = "`TOO_LARGE`: the body is too large.", body = ErrorBody),
        (status = 415, description = "`UNSUPPORTED_MEDIA_TYPE`: the body is not `application/json`.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn change(
    State(mounted): State<MountedApi>,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let id = match show_id(id) {
        Ok(id) => id,
        Err(failure) => {
            body::drain(request).await;
            return Err(failure);
        }
    };
    let expected = entity_tag::expected_versions(request.headers());
    let bytes = body::read(request, &mounted.api.settings).await?;
    let fields = json::read_object(&bytes)?;
    show_response(StatusCode::OK, &mounted.api.catalogue.change(id, fields, expected).await?)
}

/// Read an event
#[utoipa::path(
    get, path = "/events/{id}", operation_id = "getEvent", tag = "Administration", security(("token" = [])),
    params(("id" = String, Path, description = "The event's UUID.")),
    responses(
        (status = 200, description = "The event.", body = Event, headers(("ETag" = String, description = "Its version."))),
        (status = 304, description = "The `ETag` equals that of `If-None-Match`."),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 404, description = "`NOT_FOUND`: there is no such event.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn show(
    State(mounted): State<MountedApi>,
    id: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let show = mounted.api.catalogue.show(show_id(id)?).await?;
    let tag = entity_tag::of_show(&show);
    if entity_tag::is_known(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, tag)]).into_response());
    }
    show_response(StatusCode::OK, &show)
}

/// List events
///
/// Sorted by `startAt`, then by `id`. A page past the end is empty.
#[utoipa::path(
    get, path = "/events", operation_id = "listEvents", tag = "Administration", security(("token" = [])),
    params(super::openapi::ListParams, ("status" = Option<String>, Query, description = "Any of `DRAFT`, `PUBLISHED` and `CANCELLED`, separated by commas.")),
    responses(
        (status = 200, description = "One page of events.", body = EventPage),
        (status = 400, description = "`VALIDATION_ERROR` with every invalid parameter.", body = ErrorBody),
        (status = 401, description = "`UNAUTHORIZED`: an administrator's token is required.", body = ErrorBody),
        (status = 503, description = "`UNAVAILABLE`: retry later.", body = ErrorBody),
    ),
)]
pub(super) async fn list(State(mounted): State<MountedApi>, uri: Uri) -> Result<Response, Failure> {
    let query = ListQuery::parse(&view::params(&uri), Audience::Admin).map_err(Failure::invalid)?;
    let listing = mounted.api.catalogue.list(&query).await?;
    let page = EventPage::new(&listing.shows, query.page, listing.total);
    Ok(view::response(StatusCode::OK, view::json(&page)?, view::PRIVATE))
}

fn show_response(status: StatusCode, show: &Show) -> Result<Response, Failure> {
    let mut response = view::response(status, view::json(&Event::from(show))?, view::PRIVATE);
    response.headers_mut().insert(ETAG, entity_tag::of_show(show));
    Ok(response)
}

/// Parses an event's id; anything but a UUID is not found.
pub(super) fn show_id(id: Result<Path<String>, PathRejection>) -> Result<ShowId, Failure> {
    id.ok().and_then(|Path(id)| ShowId::parse(&id)).ok_or_else(Failure::not_found)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Failure> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = str::from_utf8(value.as_bytes()).ok().and_then(IdempotencyKey::parse);
    let fault = |message: &str| Failure::invalid(vec![FieldFault::new("Idempotency-Key", message)]);
    if values.next().is_some() {
        return Err(fault("must be given only once"));
    }
    key.map(Some).ok_or_else(|| fault(IdempotencyKey::EXPECTED))
}
