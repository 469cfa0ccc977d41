//! Endpoints for other systems' libraries, unmodified: a library is pointed at this service, and its events count.
//!
//! Each format has a file: how its body is read, which key it may hold, and what its libraries expect as an answer.
//! The rest is the same for all of them. An event's own id is the event's id here, so a library that sends again
//! counts nothing twice. See `docs/compatibility.md`.
//!
//! A caller is known by the user name of Basic authentication, by a bearer token, by `write_key` in the query, or by
//! a key within the body, whichever comes first. Where there is no authentication, keys are not looked at.

mod beacon;
mod cloudevents;
mod otlp;
mod outcome;
mod posthog;
mod segment;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value};

use super::auth_layer::{Routes, refused};
use super::body;
use super::params::Params;
use crate::domain::Timestamp;
use crate::event_intake::BatchResults;
use crate::json;
use crate::transport::auth::{Caller, Refusal, RequiredAccess, Scope};
use crate::transport::call;
use crate::transport::concurrency::Class;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::Failure;
use crate::transport::foreign_batch;
use crate::transport::foreign_event::ForeignEvent;

/// Adds every path.
pub(super) fn add(routes: Routes) -> Routes {
    let routes = beacon::add(cloudevents::add(otlp::add(routes)));
    posthog::add(segment::add(routes))
}

/// What a request says besides its body.
struct Head {
    headers: HeaderMap,
    uri: Uri,
    /// When it came: the time of events that have none.
    now: Timestamp,
}

/// What was read of a request.
struct Reading {
    events: Vec<ForeignEvent>,
    /// The key that was found in the body.
    key: Option<String>,
    /// Organizations that the body names: each must be the caller's.
    org_ids: Vec<String>,
}

impl Reading {
    /// Of a format whose bodies name no organization.
    const fn new(events: Vec<ForeignEvent>, key: Option<String>) -> Self {
        Self { events, key, org_ids: Vec::new() }
    }
}

/// How requests of one format are read and answered.
struct Format {
    /// Whether a body may hold the key. Otherwise the body of a request without any key is not read.
    has_key_in_body: bool,
    /// Reads the whole body. Must check the number of events before it makes them: the caller may not be known yet.
    read: fn(&Head, &Bytes, &TransportContext) -> Result<Reading, Failure>,
    /// The answer to the results, which leave no event undecided.
    answer: fn(&Head, &BatchResults) -> Response,
}

/// Why a request is not served.
enum NotServed {
    Refused(Refusal),
    Failed(Failure),
}

impl From<Failure> for NotServed {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Adds a path whose requests are of this format. Who calls may be said in the body, so that is read first where
/// nothing else says it; as many such calls are read at a time as calls without a token.
fn route(routes: Routes, path: &str, format: &'static Format) -> Routes {
    let handler = move |State(context): State<Arc<TransportContext>>, request: Request| async move {
        match serve(&context, request, format).await {
            Ok(response) => response,
            Err(NotServed::Refused(refusal)) => refused(refusal),
            Err(NotServed::Failed(failure)) => axum::response::IntoResponse::into_response(failure),
        }
    };
    routes.route(path, RequiredAccess::Nothing, post(handler))
}

async fn serve(context: &TransportContext, request: Request, format: &Format) -> Result<Response, NotServed> {
    let call = call::of(&request).cloned();
    let head = Head { headers: request.headers().clone(), uri: request.uri().clone(), now: context.app.clock.now() };
    let enter = |caller: &Caller| {
        let Some(call) = &call else { return Ok(()) };
        call.note_organization(&caller.org_id);
        call.enter(Class::Call, Some(&caller.org_use)).map_err(|error| NotServed::Failed(error.into()))
    };
    let known = match caller_of_head(context, &head).await {
        Ok(Some(caller)) => enter(&caller).map(|()| Some(caller)),
        Ok(None) if format.has_key_in_body => Ok(None),
        Ok(None) => Err(NotServed::Refused(Refusal::Missing)),
        Err(refusal) => Err(NotServed::Refused(refusal)),
    };
    let known = match known {
        Ok(known) => known,
        Err(not_served) => {
            body::drain(request).await;
            return Err(not_served);
        }
    };
    let bytes = body::read_any(request, &context.app.config).await?;
    let Reading { events, key, org_ids } = (format.read)(&head, &bytes, context)?;
    let caller = match known {
        Some(caller) => caller,
        None => {
            let key = key.ok_or(NotServed::Refused(Refusal::Missing))?;
            let caller = context.app.callers.caller_by_key(&key).await.map_err(NotServed::Refused)?;
            enter(&caller)?;
            caller
        }
    };
    org_ids.iter().try_for_each(|org_id| caller.must_be(org_id)).map_err(NotServed::Refused)?;
    let results = foreign_batch::submit(&context.app, &caller.org_id, &events, bytes.len()).await;
    Ok((format.answer)(&head, &results.map_err(Failure::from)?))
}

/// A member that is there and not null.
fn given<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    members.get(name).filter(|value| !value.is_null())
}

/// Reads a body as one JSON object.
fn read_object(bytes: &[u8]) -> Result<Map<String, Value>, Failure> {
    match read_json(bytes)? {
        Value::Object(members) => Ok(members),
        _ => Err(Failure::malformed_json("must be one JSON object".to_owned())),
    }
}

/// Reads a body as JSON.
fn read_json(bytes: &[u8]) -> Result<Value, Failure> {
    let text = str::from_utf8(bytes).map_err(|_| Failure::malformed_json("must be UTF-8".to_owned()))?;
    json::parse(text).map_err(|error| Failure::malformed_json(error.to_string()))
}

/// Who calls, where head or query say it, or nobody need say it.
async fn caller_of_head(context: &TransportContext, head: &Head) -> Result<Option<Caller>, Refusal> {
    let callers = &context.app.callers;
    if !callers.are_authenticated() {
        return callers.caller_by_key("").await.map(Some);
    }
    if let Some(key) = basic_user(&head.headers) {
        return callers.caller_by_key(&key).await.map(Some);
    }
    if head.headers.contains_key(AUTHORIZATION) {
        return callers.caller(&head.headers, Scope::Ingest).await.map(Some);
    }
    match Params::read(&head.uri).all("write_key").first() {
        Some(key) => callers.caller_by_key(key).await.map(Some),
        None => Ok(None),
    }
}

/// The user name of Basic authentication (RFC 7617). The password is not looked at.
fn basic_user(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(decoded.split(':').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_user_name_of_basic_authentication_is_the_key() {
        let check = |value: &'static str, expected: Option<&str>| {
            let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(value))]);
            assert_eq!(basic_user(&headers).as_deref(), expected, "{value}");
        };
        check("Basic dGh3X2E6", Some("thw_a"));
        check("basic dGh3X2E6cGFzcw==", Some("thw_a"));
        check("Basic dGh3X2E=", Some("thw_a"));
        check("Basic !", None);
        check("Bearer thw_a", None);
        check("Basic", None);
    }
}
