//! `EventTypeService`: event types and their versions.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::{Error, StoredVersion, VersionSummary};
use crate::event_types::{Registered, Registration};
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto;
use crate::transport::proto::event_type_service_server::EventTypeService;
use crate::transport::proto::{
    GetEventTypeRequest, GetEventTypeResponse, ListEventTypesRequest, ListEventTypesResponse, RegisterEventTypeRequest,
    RegisterEventTypeResponse,
};

/// Implements `EventTypeService`: registers versions of event types, lists and shows them.
pub(super) struct EventTypes {
    context: Arc<TransportContext>,
}

impl EventTypes {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
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
        let registered = self.context.app.event_types.register(&org_id, &r#type, registration).await;
        let Registered { version, is_new } = registered.map_err(status::of)?;
        Ok(Response::new(RegisterEventTypeResponse { version: Some(written(version)), created: is_new }))
    }

    async fn list_event_types(
        &self,
        request: Request<ListEventTypesRequest>,
    ) -> Result<Response<ListEventTypesResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let types = self.context.app.event_types.list(&org_id).await.map_err(status::of)?;
        Ok(Response::new(ListEventTypesResponse { event_types: types.into_iter().map(summary).collect() }))
    }

    async fn get_event_type(
        &self,
        request: Request<GetEventTypeRequest>,
    ) -> Result<Response<GetEventTypeResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let GetEventTypeRequest { r#type, version } = request.into_inner();
        let mut versions = self.context.app.event_types.show(&org_id, &r#type).await.map_err(status::of)?;
        if version != 0 {
            versions.retain(|stored| stored.version == version);
            if versions.is_empty() {
                return Err(status::of(Error::not_found("there is no such version of this event type")));
            }
        }
        Ok(Response::new(GetEventTypeResponse { versions: fitting(versions) }))
    }
}

/// Most bytes of the schemas of one answer; the whole stays below the 4 MiB
/// that gRPC clients accept by default.
const SCHEMAS_BYTES_MAX: usize = 3 << 20;

/// Versions, of which the first have their schemas, as many as fit.
fn fitting(versions: Vec<StoredVersion>) -> Vec<proto::EventTypeVersion> {
    let mut bytes_left = Some(SCHEMAS_BYTES_MAX);
    let fit = |version: StoredVersion| {
        bytes_left = bytes_left.and_then(|left| left.checked_sub(version.schema.len()));
        let mut version = written(version);
        if bytes_left.is_none() && !version.schema.is_empty() {
            (version.schema, version.schema_left_out) = (String::new(), true);
        }
        version
    };
    versions.into_iter().map(fit).collect()
}

fn written(version: StoredVersion) -> proto::EventTypeVersion {
    let StoredVersion { event_type, version, schema, created_at } = version;
    let created_at = Some(convert::time(created_at));
    proto::EventTypeVersion { r#type: event_type, version, schema, created_at, schema_left_out: false }
}

fn summary(summary: VersionSummary) -> proto::EventTypeSummary {
    let VersionSummary { event_type, version, has_schema, created_at } = summary;
    proto::EventTypeSummary { r#type: event_type, version, has_schema, created_at: Some(convert::time(created_at)) }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::domain::Timestamp;

    #[test]
    fn many_large_schemas_fit_and_those_left_out_are_named() {
        let stored = |version: u32| StoredVersion {
            event_type: "purchase".to_owned(),
            version,
            schema: if version == 1 { String::new() } else { "x".repeat(64 << 10) },
            created_at: Timestamp::from_millis(0),
        };
        let answer = GetEventTypeResponse { versions: fitting((1..=100).rev().map(stored).collect()) };
        assert!(answer.encoded_len() < 4 << 20, "{}", answer.encoded_len());
        assert_eq!(answer.versions.iter().filter(|version| version.schema_left_out).count(), 100 - 1 - 48);
        assert!(!answer.versions[0].schema_left_out && !answer.versions[99].schema_left_out);
    }
}
