//! The route that streams summaries as Server-Sent Events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream, StreamExt as _};

use super::admin::show_id;
use super::failure::{ErrorBody, Failure};
use super::{MountedApi, entity_tag, view};
use crate::summary::chunks::chunks;
use crate::summary::{SummaryError, SummarySubject};

const X_SUMMARY_CACHE: HeaderName = HeaderName::from_static("x-summary-cache");
/// Tells proxies to pass on each chunk as it comes.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// Time without a chunk after which a comment says that the stream is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Read a summary
///
/// Server-Sent Events: `data` with 2 to 5 tokens at a time, which concatenated are the text, then
/// `event: done` with `data: {}`. (If the text is incomplete: `event: error`.) A summary has 50 to
/// 100 tokens, and is generated once for all readers.
#[utoipa::path(
    get, path = "/public/events/{id}/summary", operation_id = "getEventSummary", tag = "Public",
    params(("id" = String, Path, description = "The event's UUID.")),
    responses(
        (status = 200, description = "The summary.", content_type = "text/event-stream", body = String, headers(
            ("X-Summary-Cache" = String, description = "`HIT` if the whole text was cached when the request arrived, otherwise `MISS`."),
            ("ETag" = String, description = "Changes when the text changes."),
        )),
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
    let subject = SummarySubject::of(&show);
    let summaries = &mounted.api.summaries;
    let key = summaries.key(&subject);
    let tag = entity_tag::tag(&key.to_string());
    let is_known = entity_tag::is_known(&headers, &tag);
    if is_known || method == Method::HEAD {
        let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
        let event_stream = HeaderValue::from_static("text/event-stream");
        let response = (status, [(CONTENT_TYPE, event_stream)]).into_response();
        return Ok(described(response, tag, summaries.is_finished(key)));
    }
    let mut reader = summaries.read(&subject);
    let is_hit = reader.is_hit();
    reader.begin().await?;
    let events = events(chunks(reader, mounted.api.settings.summary_chunk_pause));
    let response = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response();
    Ok(described(response, tag, is_hit))
}

fn described(mut response: Response, tag: HeaderValue, is_hit: bool) -> Response {
    let headers = response.headers_mut();
    headers.insert(ETAG, tag);
    headers.insert(CACHE_CONTROL, view::PUBLIC);
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    headers.insert(X_SUMMARY_CACHE, HeaderValue::from_static(if is_hit { "HIT" } else { "MISS" }));
    response
}

/// The chunks, and how they end.
fn events(
    chunks: impl Stream<Item = Result<String, SummaryError>> + Send + 'static,
) -> impl Stream<Item = Result<Event, Infallible>> + Send {
    let end = stream::once(async { Ok("done") });
    // After an error nothing follows.
    let mut is_over = false;
    let all = chunks.map(|chunk| chunk.map(Some)).chain(end.map(|done: Result<_, SummaryError>| done.map(|_| None)));
    all.take_while(move |part| {
        let goes_on = !is_over;
        is_over |= part.is_err();
        std::future::ready(goes_on)
    })
    .map(|part| {
        Ok(match part {
            Ok(Some(chunk)) => Event::default().data(chunk),
            Ok(None) => Event::default().event("done").data("{}"),
            // The cause is in the log.
            Err(_) => Event::default().event("error").data("{\"code\":\"UNAVAILABLE\"}"),
        })
    })
}
