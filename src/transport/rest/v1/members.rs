//! Routes of members: the users that belong to an organization.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Error, Limit, Member, MemberDraft, OrgId, nothing_wrong};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::body;
use crate::transport::rest::fields::{FieldErrors, Text};
use crate::transport::rest::params::Params;
use crate::transport::rfc3339;

/// A membership, as it is sent.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewMember<'a> {
    /// What the user may do there. At most 64 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "owner")]
    role: Text<'a>,
    /// Since when, in the years 1900 to 2299. Without it, as it was; now for a new membership.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-02-10T21:10:00Z")]
    joined_at: Text<'a>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

impl NewMember<'_> {
    fn draft(&self, user_id: &str) -> Result<MemberDraft, Error> {
        let mut faults = FieldErrors::default();
        let draft = MemberDraft {
            role: faults.optional("role", &self.role).to_owned(),
            joined_at: faults.time("joined_at", &self.joined_at),
        };
        draft.check(user_id, &mut faults.0);
        nothing_wrong(faults.0)?;
        Ok(draft)
    }
}

/// A membership.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredMember {
    /// The organization.
    #[schema(example = "acme")]
    org_id: String,
    /// The user.
    #[schema(example = "user_42")]
    user_id: String,
    /// The member's role; empty if unknown.
    #[schema(example = "owner")]
    role: String,
    /// The start of the membership.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    joined_at: String,
}

impl StoredMember {
    fn new(org_id: &OrgId, member: Member) -> Self {
        let Member { user_id, role, joined_at } = member;
        Self { org_id: org_id.as_str().to_owned(), user_id, role, joined_at: rfc3339::write(joined_at) }
    }
}

/// A page of memberships.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct MemberList {
    /// By `user_id`.
    members: Vec<StoredMember>,
    /// Ask with this as `cursor` for the next page; null when this was the last.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Put a membership in its place
///
/// An existing one is replaced. The user need not be known.
#[utoipa::path(
    put, path = "/api/v1/organizations/{org_id}/members/{user_id}", operation_id = "putMember", tag = "Analytics",
    security(("token" = ["admin"])),
    params(
        ("org_id" = String, Path, description = "The organization; must be that of the token."),
        ("user_id" = String, Path, description = "The user's id, percent-encoded. At most 256 bytes."),
    ),
    request_body(content = NewMember, description = "The membership. Unknown fields are ignored; null means missing."),
    responses(
        (status = 200, description = "The membership, as it is stored.", body = StoredMember),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn put(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Json<StoredMember>, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let (org_id, user_id) = super::named(path)?;
    let org_id = caller.organization(&org_id)?;
    let body: NewMember<'_> = super::read(&bytes)?;
    super::check_org_id(&caller, &body.org_id)?;
    let draft = body.draft(&user_id)?;
    let stored = context.app.directory.put_member(&org_id, user_id, draft).await?;
    Ok(Json(StoredMember::new(&org_id, stored)))
}

/// An organization's members
#[utoipa::path(
    get, path = "/api/v1/organizations/{org_id}/members", operation_id = "listMembers", tag = "Analytics",
    security(("token" = ["admin"])),
    params(
        ("org_id" = String, Path, description = "The organization; must be that of the token."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 500, description = "Largest number of entries; default 50."),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page of members.", body = MemberList),
        (status = 400, description = "The cursor was changed, or belongs to another list: `INVALID_CURSOR`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    mut params: Params,
) -> Result<Json<MemberList>, Failure> {
    let org_id = caller.organization(&super::named(path)?)?;
    let limit = params.limit(Limit::PAGE_MAX, Limit::PAGE_DEFAULT);
    let cursor = params.filter("cursor");
    let limit = params.done(limit)?;
    let cursors = &context.app.cursors;
    let after = cursors.member("cursor", &cursor, &org_id).map_err(Failure::invalid_cursor)?;
    let page = context.app.directory.members(&org_id, limit, after.as_deref()).await?;
    Ok(Json(MemberList {
        members: page.members.into_iter().map(|member| StoredMember::new(&org_id, member)).collect(),
        next_cursor: page.next.map(|user_id| cursors.after_member(&org_id, &user_id)),
    }))
}
