//! Write keys: created, listed and revoked.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{WriteKey, nothing_wrong};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{AnyFailure, BodyFailure, ErrorBody, Failure};
use crate::transport::rest::body;
use crate::transport::rest::fields::{FieldErrors, Text};
use crate::transport::rfc3339;

/// A write key, as it is asked for.
#[derive(Deserialize, ToSchema)]
pub(in crate::transport::rest) struct NewWriteKey<'a> {
    /// What people call it. 1 to 100 bytes.
    #[serde(borrow, default)]
    #[schema(value_type = String, required, min_length = 1, example = "website")]
    name: Text<'a>,
}

/// A write key, without what callers send.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct StoredWriteKey {
    /// Its identity.
    #[schema(example = "0199c2f0-7d6c-7a51-9d2b-6a4f3c1e8b77")]
    key_id: String,
    /// What people call it.
    #[schema(example = "website")]
    name: String,
    /// The first characters of its text.
    #[schema(example = "thw_8sKx2v")]
    prefix: String,
    /// When it was created.
    #[schema(format = DateTime, example = "2026-02-10T21:10:00Z")]
    created_at: String,
    /// When it was revoked; null while it may be used.
    #[schema(required, format = DateTime, example = "2026-02-11T21:10:00Z")]
    revoked_at: Option<String>,
}

impl From<WriteKey> for StoredWriteKey {
    fn from(key: WriteKey) -> Self {
        let WriteKey { org_id: _, key_id, name, prefix, created_at, revoked_at } = key;
        let (created_at, revoked_at) = (rfc3339::write(created_at), revoked_at.map(rfc3339::write));
        Self { key_id, name, prefix, created_at, revoked_at }
    }
}

/// A new write key.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct CreatedWriteKey {
    #[serde(flatten)]
    key: StoredWriteKey,
    /// What callers send. It is shown only here.
    #[schema(example = "thw_8sKx2vVb0Zr5nq9tJc3hLw7yPd1mGf4a")]
    text: String,
}

/// All write keys.
#[derive(Serialize, ToSchema)]
pub(in crate::transport::rest) struct WriteKeyList {
    /// The oldest first; those that were revoked too.
    write_keys: Vec<StoredWriteKey>,
}

/// Create a write key
///
/// A write key goes where a token cannot: into a page, or into the configuration of somebody else's library. It may
/// only send events of its organization. An organization may have 100 that are not revoked.
#[utoipa::path(
    post, path = "/api/v1/write-keys", operation_id = "createWriteKey", tag = "Analytics",
    security(("token" = ["admin"])),
    request_body(content = NewWriteKey, description = "The key. Unknown fields are ignored."),
    responses(
        (status = 201, description = "The key, with what callers send: it is shown only here.", body = CreatedWriteKey),
        (status = 409, description = "The organization has as many keys as it may have: `CONFLICT`.", body = ErrorBody),
        BodyFailure,
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn create(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    request: Request,
) -> Result<(StatusCode, Json<CreatedWriteKey>), Failure> {
    let bytes = body::read(request, &context.app.config).await?;
    let body: NewWriteKey<'_> = super::read(&bytes)?;
    let mut faults = FieldErrors::default();
    let name = faults.optional("name", &body.name).to_owned();
    nothing_wrong(faults.0)?;
    let (key, text) = context.app.write_keys.create(&caller.org_id, &name).await?;
    Ok((StatusCode::CREATED, Json(CreatedWriteKey { key: key.into(), text })))
}

/// List write keys
#[utoipa::path(
    get, path = "/api/v1/write-keys", operation_id = "listWriteKeys", tag = "Analytics",
    security(("token" = ["admin"])),
    responses((status = 200, description = "All write keys of the organization.", body = WriteKeyList), AnyFailure),
)]
pub(in crate::transport::rest) async fn list(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
) -> Result<Json<WriteKeyList>, Failure> {
    let keys = context.app.write_keys.list(&caller.org_id).await?;
    Ok(Json(WriteKeyList { write_keys: keys.into_iter().map(StoredWriteKey::from).collect() }))
}

/// Revoke a write key
///
/// For good. This instance refuses the key from then on, others within ten seconds.
#[utoipa::path(
    delete, path = "/api/v1/write-keys/{key_id}", operation_id = "revokeWriteKey", tag = "Analytics",
    security(("token" = ["admin"])),
    params(("key_id" = String, Path, description = "Which.")),
    responses(
        (status = 200, description = "The key, which is revoked.", body = StoredWriteKey),
        (status = 404, description = "The organization has no such key: `NOT_FOUND`.", body = ErrorBody),
        AnyFailure,
    ),
)]
pub(in crate::transport::rest) async fn revoke(
    State(context): State<Arc<TransportContext>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<StoredWriteKey>, Failure> {
    let key_id = super::named(path)?;
    Ok(Json(context.app.write_keys.revoke(&caller.org_id, &key_id).await?.into()))
}
