//! Routes of event types: register a version, list types, show one.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::{Error, StoredVersion, VersionSummary};
use crate::event_types::{Registered, Registration};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::auth_layer::PathOrganization;
use crate::transport::rest::body;
use crate::transport::rest::fields::{FieldErrors, NotAnObject, Text, read_object};
use crate::transport::rfc3339;

/// A version to register.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewEventType)]
pub(in crate::transport::rest) struct EventTypeBody<'a> {
    /// The last version's number plus one, or the last version's number with the same schema, which
    /// changes nothing. Default: the next number, or the last one if the schema is the same.
    #[serde(borrow, default)]
    #[schema(value_type = Option<u32>, minimum = 1, example = 2)]
    version: Option<&'a RawValue>,
    /// The schema of `properties`: a JSON Schema (draft 2020-12) of at most 64 KiB. References
    /// point to `#/$defs/…` of the same schema. Default: all properties are accepted.
    #[serde(borrow, default)]
    #[schema(value_type = Option<Object>)]
    schema: Option<&'a RawValue>,
    /// Registers the version even if it may refuse what the last one accepts.
    #[serde(borrow, default)]
    #[schema(value_type = Option<bool>)]
    force: Option<&'a RawValue>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

impl EventTypeBody<'_> {
    fn registration(&self) -> Result<Registration, Error> {
        let mut faults = FieldErrors::default();
        let version = self.version.map(|version| version.get().parse().unwrap_or_default());
        if version == Some(0) {
            faults.add("version", "must be a whole number from 1 to 4294967295");
        }
        let force = self.force.map_or(Some(false), |force| serde_json::from_str(force.get()).ok());
        if force.is_none() {
            faults.add("force", "must be true or false");
        }
        let schema = self.schema.map(|schema| schema.get().to_owned()).unwrap_or_default();
        if !faults.0.is_empty() {
            return Err(Error::invalid(faults.0));
        }
        Ok(Registration { version, schema, force: force.unwrap_or_default() })
    }
}

/// A version of a type.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct EventTypeVersion {
    /// The type.
    #[serde(rename = "type")]
    #[schema(example = "purchase")]
    event_type: String,
    /// The version's number, from 1.
    #[schema(example = 2)]
    version: u32,
    /// The schema of `properties`; null if all are accepted.
    #[schema(value_type = Option<Object>, required)]
    schema: Option<Box<RawValue>>,
    /// When it was registered, to the millisecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    created_at: String,
}

impl From<StoredVersion> for EventTypeVersion {
    fn from(version: StoredVersion) -> Self {
        let StoredVersion { event_type, version, schema, created_at } = version;
        // Without a schema, the text is empty, and no JSON.
        let schema = RawValue::from_string(schema).ok();
        Self { event_type, version, schema, created_at: rfc3339::write_millis(created_at) }
    }
}

/// A type with its latest version.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct EventTypeSummary {
    /// The type.
    #[serde(rename = "type")]
    #[schema(example = "purchase")]
    event_type: String,
    /// The latest version's number, from 1.
    #[schema(example = 2)]
    version: u32,
    /// Whether it has a schema; if not, all properties are accepted.
    has_schema: bool,
    /// When it was registered, to the millisecond.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00.123Z")]
    created_at: String,
}

impl From<VersionSummary> for EventTypeSummary {
    fn from(summary: VersionSummary) -> Self {
        let VersionSummary { event_type, version, has_schema, created_at } = summary;
        Self { event_type, version, has_schema, created_at: rfc3339::write_millis(created_at) }
    }
}

/// All types.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct EventTypes {
    /// By name.
    event_types: Vec<EventTypeSummary>,
}

/// One type.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct EventType {
    /// The type.
    #[serde(rename = "type")]
    #[schema(example = "purchase")]
    event_type: String,
    /// The latest version's number.
    #[schema(example = 2)]
    version: u32,
    /// Every version, the latest first.
    versions: Vec<EventTypeVersion>,
}

/// Register a version of an event type
///
/// Answers when the version is durable. From then on, events of the type are checked against it and
/// record its number.
#[utoipa::path(
    put, path = "/api/v1/event-types/{type}", operation_id = "putEventType", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("type" = String, Path, description = "The type: 1 to 64 letters, digits, `_`, `-`, `.` or `:`.")),
    request_body(content = EventTypeBody, description = "The version. Unknown fields are ignored; null means missing."),
    responses(
        (status = 200, description = "The same version was registered before.", body = EventTypeVersion),
        (status = 201, description = "The version was registered.", body = EventTypeVersion),
        (status = 409, description = "Another caller is registering the type, or has registered this version with another schema: `CONFLICT`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
        (status = 422, description = "The request is invalid: `VALIDATION_ERROR`. Or the version may refuse what the last one accepts, at the named paths: `INCOMPATIBLE_SCHEMA`.", body = ErrorBody),
    ),
)]
pub(in crate::transport::rest) async fn put(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    event_type: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let event_type = name(event_type)?;
    let body: EventTypeBody<'_> = read_object(&bytes).map_err(NotAnObject::failure)?;
    super::check_org_id(&caller, &body.org_id)?;
    let registered = context.app.event_types.register(&caller.org_id, &event_type, body.registration()?).await?;
    let Registered { version, is_new } = registered;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(EventTypeVersion::from(version))).into_response())
}

/// List event types with their latest versions
#[utoipa::path(
    get, path = "/api/v1/event-types", operation_id = "listEventTypes", tag = "Analytics",
    security(("token" = ["read"])),
    responses((status = 200, description = "All types.", body = EventTypes), AnyFailure),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
) -> Result<Response, Failure> {
    let types = context.app.event_types.list(&org_id).await?;
    Ok(Json(EventTypes { event_types: types.into_iter().map(EventTypeSummary::from).collect() }).into_response())
}

/// Show an event type with all versions
#[utoipa::path(
    get, path = "/api/v1/event-types/{type}", operation_id = "getEventType", tag = "Analytics",
    security(("token" = ["read"])),
    params(("type" = String, Path, description = "The type, percent-encoded.")),
    responses(
        (status = 200, description = "The type.", body = EventType),
        (status = 404, description = "It is not registered: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    event_type: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let event_type = name(event_type)?;
    let versions = context.app.event_types.show(&org_id, &event_type).await?;
    let version = versions.first().map_or(0, |latest| latest.version); // There is one.
    let versions = versions.into_iter().map(EventTypeVersion::from).collect();
    Ok(Json(EventType { event_type, version, versions }).into_response())
}

fn name(event_type: Result<Path<String>, PathRejection>) -> Result<String, Error> {
    let Path(event_type) = event_type.map_err(|_| Error::invalid_field("type", "must be UTF-8, percent-encoded"))?;
    Ok(event_type)
}
