//! Routes of users of an organization.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Error, User, UserDraft, nothing_wrong};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::auth_layer::PathOrganization;
use crate::transport::rest::body;
use crate::transport::rest::fields::{FieldErrors, Text};
use crate::transport::rfc3339;

/// A user to store.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewUser<'a> {
    /// The e-mail address. At most 320 bytes; not validated further.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "ada@acme.example")]
    email: Text<'a>,
    /// The name. At most 256 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "Ada")]
    name: Text<'a>,
    /// The user's role. At most 64 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "editor")]
    role: Text<'a>,
    /// When the user was created, in the years 1900 to 2299. Default: unchanged; now for a new
    /// user.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: Text<'a>,
    /// When this was last changed, in the years 1900 to 2299. Default: now.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, format = DateTime, example = "2026-02-10T21:10:00Z")]
    updated_at: Text<'a>,
    /// The organization. Optional; must be that of the token.
    #[serde(borrow, default)]
    #[schema(value_type = Option<String>, example = "acme")]
    org_id: Text<'a>,
}

impl NewUser<'_> {
    fn draft(&self, user_id: &str) -> Result<UserDraft, Error> {
        let mut faults = FieldErrors::default();
        let draft = UserDraft {
            email: faults.optional("email", &self.email).to_owned(),
            name: faults.optional("name", &self.name).to_owned(),
            role: faults.optional("role", &self.role).to_owned(),
            created_at: faults.time("created_at", &self.created_at),
            updated_at: faults.time("updated_at", &self.updated_at),
        };
        draft.check(user_id, &mut faults.0);
        nothing_wrong(faults.0)?;
        Ok(draft)
    }
}

/// A user of an organization.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredUser {
    /// The user's id, as in events.
    #[schema(example = "user_42")]
    user_id: String,
    /// The e-mail address; empty when unknown.
    #[schema(example = "ada@acme.example")]
    email: String,
    /// The name; empty when unknown.
    #[schema(example = "Ada")]
    name: String,
    /// The user's role; empty if unknown.
    #[schema(example = "editor")]
    role: String,
    /// When the user was created.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: String,
    /// When this was last changed.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    updated_at: String,
}

impl From<User> for StoredUser {
    fn from(user: User) -> Self {
        let User { user_id, email, name, role, created_at, updated_at } = user;
        let (created_at, updated_at) = (rfc3339::write(created_at), rfc3339::write(updated_at));
        Self { user_id, email, name, role, created_at, updated_at }
    }
}

/// Create or replace a user
///
/// An existing one is replaced.
#[utoipa::path(
    put, path = "/api/v1/users/{user_id}", operation_id = "putUser", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("user_id" = String, Path, description = "The user's id, percent-encoded. At most 256 bytes.")),
    request_body(content = NewUser, description = "The user. Unknown fields are ignored; null means missing."),
    responses(
        (status = 200, description = "The stored user.", body = StoredUser),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn put(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Json<StoredUser>, Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let user_id = super::named(path)?;
    let body: NewUser<'_> = super::read(&bytes)?;
    super::check_org_id(&caller, &body.org_id)?;
    let draft = body.draft(&user_id)?;
    Ok(Json(context.app.directory.put_user(&caller.org_id, user_id, draft).await?.into()))
}

/// A user
///
/// (A user whose id is `top` can be stored, but not shown by this route.)
#[utoipa::path(
    get, path = "/api/v1/users/{user_id}", operation_id = "getUser", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("user_id" = String, Path, description = "The user's id, percent-encoded.")),
    responses(
        (status = 200, description = "The user.", body = StoredUser),
        (status = 404, description = "There is no user with this id: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn show(
    State(context): State<Arc<TransportContext>>,
    PathOrganization(org_id): PathOrganization,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredUser>, Failure> {
    Ok(Json(context.app.directory.user(&org_id, &super::named(path)?).await?.into()))
}
