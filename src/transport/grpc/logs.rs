//! OTLP over gRPC: `LogsService/Export`. Which record becomes which event: [`crate::transport::otlp`].
//!
//! The method is served by hand, as the generated server of the protocol would, because messages are looked at before
//! they are decoded (see [`crate::transport::proto::codec`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use tonic::body::Body;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tower::Service;

use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::codec::CountingCodec;
use crate::transport::{foreign_batch, otlp};

/// The path of the one method.
const EXPORT: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Takes log records as events.
#[derive(Clone)]
pub(super) struct LogsServer {
    context: Arc<TransportContext>,
    message_bytes_max: usize,
}

impl LogsServer {
    pub(super) const fn new(context: Arc<TransportContext>, message_bytes_max: usize) -> Self {
        Self { context, message_bytes_max }
    }
}

impl NamedService for LogsServer {
    const NAME: &'static str = "opentelemetry.proto.collector.logs.v1.LogsService";
}

impl Service<axum::http::Request<Body>> for LogsServer {
    type Response = axum::http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: axum::http::Request<Body>) -> Self::Future {
        let Self { context, message_bytes_max } = self.clone();
        async move {
            if request.uri().path() != EXPORT {
                return Ok(Status::unimplemented("there is no such method").into_http());
            }
            let mut gzip = EnabledCompressionEncodings::default();
            gzip.enable(CompressionEncoding::Gzip);
            let codec = CountingCodec::<ExportLogsServiceResponse, ExportLogsServiceRequest>::default();
            let mut grpc = Grpc::new(codec)
                .apply_compression_config(gzip, EnabledCompressionEncodings::default())
                .apply_max_message_size_config(Some(message_bytes_max), None);
            Ok(grpc.unary(Export { context }, request).await)
        }
        .boxed()
    }
}

struct Export {
    context: Arc<TransportContext>,
}

impl UnaryService<ExportLogsServiceRequest> for Export {
    type Response = ExportLogsServiceResponse;
    type Future = BoxFuture<'static, Result<Response<ExportLogsServiceResponse>, Status>>;

    fn call(&mut self, request: Request<ExportLogsServiceRequest>) -> Self::Future {
        let context = Arc::clone(&self.context);
        async move {
            let org_id = super::caller(&request)?.org_id;
            let (app, request) = (&*context.app, request.get_ref());
            let events = otlp::events(request, &app.config.otlp_id_attribute, app.clock.now());
            let bytes = prost::Message::encoded_len(request);
            let results = foreign_batch::submit(app, &org_id, &events, bytes).await.map_err(status::of)?;
            Ok(Response::new(otlp::answer(&results.verdicts)))
        }
        .boxed()
    }
}
