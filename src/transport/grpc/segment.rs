//! `SegmentService`: segments of the log, for operators.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::Error;
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::segment_service_server::SegmentService;
use crate::transport::proto::{
    ListSegmentsRequest, ListSegmentsResponse, RetryParkedSegmentsRequest, RetryParkedSegmentsResponse,
};

/// What callers who show a token are told of an error.
const SEE_LOG: &str = "ClickHouse refused it; the service's log has the cause";

/// Implements `SegmentService`: lists the segments of the log, and retries parked ones. Requires
/// the scope `admin`.
pub(super) struct Segments {
    context: Arc<TransportContext>,
}

impl Segments {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl SegmentService for Segments {
    async fn list_segments(
        &self,
        request: Request<ListSegmentsRequest>,
    ) -> Result<Response<ListSegmentsResponse>, Status> {
        super::caller(&request)?;
        let segments = self.context.app.log.segments().list();
        let mut segments: Vec<_> = segments.into_iter().map(convert::segment).collect();
        if self.context.app.callers.are_authenticated() {
            // ClickHouse's words may quote events, of whatever organization.
            for segment in segments.iter_mut().filter(|segment| !segment.last_error.is_empty()) {
                SEE_LOG.clone_into(&mut segment.last_error);
            }
        }
        Ok(Response::new(ListSegmentsResponse { segments }))
    }

    async fn retry_parked_segments(
        &self,
        request: Request<RetryParkedSegmentsRequest>,
    ) -> Result<Response<RetryParkedSegmentsResponse>, Status> {
        super::caller(&request)?;
        let log = Arc::clone(&self.context.app.log);
        // It renames files and syncs their directory.
        let retried = tokio::task::spawn_blocking(move || log.retry_parked()).await.map_err(|error| {
            tracing::error!(%error, "could not retry parked segments");
            status::of(Error::internal())
        })?;
        tracing::info!(segments = retried, "parked segments are retried");
        Ok(Response::new(RetryParkedSegmentsResponse { segments: u32::try_from(retried).unwrap_or(u32::MAX) }))
    }
}
