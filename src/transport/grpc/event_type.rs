//! Event types.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, status};
use crate::event_types::{Registered, Registration, StoredVersion, VersionSummary};
use crate::transport::proto;
use crate::transport::proto::event_type_service_server::EventTypeService;
use crate::transport::proto::{
    GetEventTypeRequest, GetEventTypeResponse, ListEventTypesRequest, ListEventTypesResponse, RegisterEventTypeRequest,
    RegisterEventTypeResponse,
};
use crate::transport::serving::Serving;

/// See the module.
pub(super) struct EventTypes {
    serving: Arc<Serving>,
}

impl EventTypes {
    pub(super) const fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[tonic::async_trait]
impl EventTypeService for EventTypes {
    async fn register_event_type(
        &self,
        request: Request<RegisterEventTypeRequest>,
    ) -> Result<Response<RegisterEventTypeResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let RegisterEventTypeRequest { r#type, version, schema, force } = request.into_inner();
        let registration = Registration { version: (version != 0).then_some(version), schema, force };
        let registered = self.serving.app.event_types.register(&org_id, &r#type, registration).await;
        let Registered { version, is_new } = registered.map_err(status::of)?;
        Ok(Response::new(RegisterEventTypeResponse { version: Some(written(version)), created: is_new }))
    }

    async fn list_event_types(
        &self,
        request: Request<ListEventTypesRequest>,
    ) -> Result<Response<ListEventTypesResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let types = self.serving.app.event_types.list(&org_id).await.map_err(status::of)?;
        Ok(Response::new(ListEventTypesResponse { event_types: types.into_iter().map(summary).collect() }))
    }

    async fn get_event_type(
        &self,
        request: Request<GetEventTypeRequest>,
    ) -> Result<Response<GetEventTypeResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let event_type = request.into_inner().r#type;
        let versions = self.serving.app.event_types.show(&org_id, &event_type).await.map_err(status::of)?;
        Ok(Response::new(GetEventTypeResponse { versions: versions.into_iter().map(written).collect() }))
    }
}

fn written(version: StoredVersion) -> proto::EventTypeVersion {
    let StoredVersion { event_type, version, schema, created_at } = version;
    proto::EventTypeVersion { r#type: event_type, version, schema, created_at: Some(convert::time(created_at)) }
}

fn summary(summary: VersionSummary) -> proto::EventTypeSummary {
    let VersionSummary { event_type, version, has_schema, created_at } = summary;
    proto::EventTypeSummary { r#type: event_type, version, has_schema, created_at: Some(convert::time(created_at)) }
}
