//! Write keys: created, listed and revoked.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::WriteKey;
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::write_key_service_server::WriteKeyService;
use crate::transport::proto::{
    self, CreateWriteKeyRequest, CreateWriteKeyResponse, ListWriteKeysRequest, ListWriteKeysResponse,
    RevokeWriteKeyRequest, RevokeWriteKeyResponse,
};

/// Answers calls about write keys.
pub(super) struct WriteKeys {
    context: Arc<TransportContext>,
}

impl WriteKeys {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl WriteKeyService for WriteKeys {
    async fn create_write_key(
        &self,
        request: Request<CreateWriteKeyRequest>,
    ) -> Result<Response<CreateWriteKeyResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let created = self.context.app.write_keys.create(&org_id, &request.get_ref().name).await;
        let (key, text) = created.map_err(status::of)?;
        Ok(Response::new(CreateWriteKeyResponse { write_key: Some(to_proto(key)), text }))
    }

    async fn list_write_keys(
        &self,
        request: Request<ListWriteKeysRequest>,
    ) -> Result<Response<ListWriteKeysResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let keys = self.context.app.write_keys.list(&org_id).await.map_err(status::of)?;
        Ok(Response::new(ListWriteKeysResponse { write_keys: keys.into_iter().map(to_proto).collect() }))
    }

    async fn revoke_write_key(
        &self,
        request: Request<RevokeWriteKeyRequest>,
    ) -> Result<Response<RevokeWriteKeyResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let key = self.context.app.write_keys.revoke(&org_id, &request.get_ref().key_id).await.map_err(status::of)?;
        Ok(Response::new(RevokeWriteKeyResponse { write_key: Some(to_proto(key)) }))
    }
}

fn to_proto(key: WriteKey) -> proto::WriteKey {
    let WriteKey { org_id: _, key_id, name, prefix, created_at, revoked_at } = key;
    proto::WriteKey {
        key_id,
        name,
        prefix,
        created_at: Some(convert::time(created_at)),
        revoked_at: revoked_at.map(convert::time),
    }
}
