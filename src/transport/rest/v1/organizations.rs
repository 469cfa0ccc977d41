//! Routes of organizations: create or replace one, show it, and list those with the most events.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Error, Limit, Organization, OrganizationCount, OrganizationDraft, UnknownTypes, nothing_wrong};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::answer::answer;
use crate::transport::rest::auth_layer::PathOrganization;
use crate::transport::rest::body;
use crate::transport::rest::fields::{FieldErrors, Text};
use crate::transport::rest::params::Params;
use crate::transport::rfc3339;

/// An organization to store.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewOrganization<'a> {
    /// Its name. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "Acme")]
    name: Text<'a>,
    /// Its subscription plan. At most 64 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "pro")]
    plan: Text<'a>,
    /// The handling of events of unregistered types: `accept` or `reject`. Default: unchanged;
    /// `accept` for a new organization.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "accept")]
    unknown_event_types: Text<'a>,
    /// When it was created, in the years 1900 to 2299. Default: unchanged; now for a new
    /// organization.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: Text<'a>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

impl NewOrganization<'_> {
    fn draft(&self) -> Result<OrganizationDraft, Error> {
        let mut faults = FieldErrors::default();
        let policy = faults.optional("unknown_event_types", &self.unknown_event_types);
        let unknown_event_types = UnknownTypes::parse(policy);
        if unknown_event_types.is_none() && matches!(self.unknown_event_types, Text::Given(_)) {
            faults.add("unknown_event_types", "must be 'accept' or 'reject'");
        }
        let draft = OrganizationDraft {
            name: faults.optional("name", &self.name).to_owned(),
            plan: faults.optional("plan", &self.plan).to_owned(),
            unknown_event_types,
            created_at: faults.time("created_at", &self.created_at),
        };
        draft.check(&mut faults.0);
        nothing_wrong(faults.0)?;
        Ok(draft)
    }
}

/// An organization.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredOrganization {
    /// Its id.
    #[schema(example = "acme")]
    org_id: String,
    /// Its name.
    #[schema(example = "Acme")]
    name: String,
    /// Its subscription plan; empty if unknown.
    #[schema(example = "pro")]
    plan: String,
    /// The handling of events of unregistered types: `accept` or `reject`.
    #[schema(example = "accept")]
    unknown_event_types: &'static str,
    /// When it was created.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: String,
    /// When it was last replaced.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    updated_at: String,
}

impl From<Organization> for StoredOrganization {
    fn from(organization: Organization) -> Self {
        let Organization { org_id, name, plan, unknown_event_types, created_at, updated_at } = organization;
        Self {
            org_id: org_id.as_str().to_owned(),
            name,
            plan,
            unknown_event_types: unknown_event_types.as_str(),
            created_at: rfc3339::write(created_at),
            updated_at: rfc3339::write(updated_at),
        }
    }
}

/// Create or replace an organization
///
/// An existing one is replaced.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org_id}", operation_id = "putOrganization", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("org_id" = String, Path, description = "The organization; must be that of the token.")),
    request_body(content = NewOrganization, description = "The organization. Unknown fields are ignored; null means missing."),
    responses(
        (status = 200, description = "The stored organization.", body = StoredOrganization),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn put(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<StoredOrganization>, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let org_id = caller.organization(&super::named(path)?)?;
    let body: NewOrganization<'_> = super::read(&bytes)?;
    super::check_org_id(&caller, &body.org_id)?;
    let stored = context.app.directory.put_organization(&org_id, body.draft()?).await?;
    Ok(Json(stored.into()))
}

/// An organization
#[utoipa::path(
    get, path = "/api/v1/organizations/{org_id}", operation_id = "getOrganization", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("org_id" = String, Path, description = "The organization; must be that of the token.")),
    responses(
        (status = 200, description = "The organization.", body = StoredOrganization),
        (status = 404, description = "It is not registered: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredOrganization>, Failure> {
    let org_id = caller.organization(&super::named(path)?)?;
    Ok(Json(context.app.directory.organization(&org_id).await?.into()))
}

/// The organizations with the most events.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct TopOrganizations {
    /// The first day.
    #[schema(format = Date, example = "2026-01-12")]
    start_date: String,
    /// The last day: today, in UTC.
    #[schema(format = Date, example = "2026-02-10")]
    end_date: String,
    /// Most events first; equal counts by `org_id`.
    organizations: Vec<TopOrganization>,
}

/// One organization's count.
#[derive(Serialize, ToSchema)]
struct TopOrganization {
    /// The organization.
    #[schema(example = "acme")]
    org_id: String,
    /// Its name; empty when it is not registered.
    #[schema(example = "Acme")]
    name: String,
    /// Its plan; empty when it is not registered.
    #[schema(example = "pro")]
    plan: String,
    /// Events of every type.
    #[schema(example = 1234)]
    events: u64,
}

impl From<OrganizationCount> for TopOrganization {
    fn from(count: OrganizationCount) -> Self {
        let OrganizationCount { org_id, name, plan, events } = count;
        Self { org_id, name, plan, events }
    }
}

/// The organizations with the most events
///
/// Among all organizations. With authentication, only the operator's organization is allowed to
/// call this (`operator_org_id`).
#[utoipa::path(
    get, path = "/api/v1/organizations/top", operation_id = "getTopOrganizations", tag = "Analytics",
    security(("token" = ["admin"])),
    params(
        ("days" = Option<u32>, Query, minimum = 1, maximum = 3660, description = "Whole days in UTC, up to and including today; default 30."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries; default 5."),
    ),
    responses(
        (status = 200, description = "The organizations.", body = TopOrganizations, headers(
            ("X-Cache" = String, description = "Always `MISS`: this is not cached."),
            ("X-Watermark" = String, description = "Everything acknowledged at or before this time is counted. RFC 3339."),
        )),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn top(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    params: Params,
) -> Result<Response, Failure> {
    let (days, limit) = question(params)?;
    let (window, found) = context.app.directory.top_organizations(&org_id, days, limit).await?;
    let top = TopOrganizations {
        start_date: rfc3339::write_date(window.from()),
        end_date: rfc3339::write_date(window.to().plus_millis(-1)),
        organizations: found.value.into_iter().map(TopOrganization::from).collect(),
    };
    Ok(answer(top, found.watermark, found.cached))
}

pub(in crate::transport::rest) fn question(mut params: Params) -> Result<(Limit, Limit), Error> {
    let days = params.count("days", Limit::DAYS_MAX).unwrap_or(Some(Limit::DAYS_DEFAULT));
    let limit = params.limit(Limit::RANKING_MAX, Limit::ORGANIZATIONS_DEFAULT);
    params.done(days.zip(limit))
}
