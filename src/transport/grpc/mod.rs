//! gRPC and grpc-web: one file per service.

mod access;
mod audit;
mod auth_layer;
mod convert;
mod deadline;
mod delivery;
mod event_type;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
pub(super) mod health;
mod ingest;
mod logs;
mod methods;
mod metrics;
mod organization;
mod outcome;
mod query;
mod request_body;
mod segment;
mod write_key;

use std::convert::Infallible;
use std::sync::Arc;

use axum::http::{Request, Response};
use axum::routing::post_service;
use tonic::body::Body;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::server::NamedService;
use tower::Service;

use super::auth::Caller;
use super::context::TransportContext;
use super::error::status;
use super::proto;
use super::proto::audit_service_server::AuditServiceServer;
use super::proto::delivery_service_server::DeliveryServiceServer;
use super::proto::event_type_service_server::EventTypeServiceServer;
use super::proto::ingest_service_server::IngestServiceServer;
use super::proto::metrics_service_server::MetricsServiceServer;
use super::proto::organization_service_server::OrganizationServiceServer;
use super::proto::outcome_service_server::OutcomeServiceServer;
use super::proto::query_service_server::QueryServiceServer;
use super::proto::segment_service_server::SegmentServiceServer;
use super::proto::write_key_service_server::WriteKeyServiceServer;
use crate::domain::Error;
use audit::Audits;
use auth_layer::AuthLayer;
use delivery::Deliveries;
use event_type::EventTypes;
use health::HealthService;
use ingest::Ingest;
use logs::LogsServer;
use methods::Methods;
use metrics::Metrics;
use organization::Organizations;
use outcome::Outcomes;
use query::Query;
use segment::Segments;
use write_key::WriteKeys;

/// The names of our services, as health and routes have them.
const SERVICE_NAMES: [&str; 10] = [
    IngestServiceServer::<Ingest>::NAME,
    QueryServiceServer::<Query>::NAME,
    MetricsServiceServer::<Metrics>::NAME,
    OrganizationServiceServer::<Organizations>::NAME,
    OutcomeServiceServer::<Outcomes>::NAME,
    SegmentServiceServer::<Segments>::NAME,
    AuditServiceServer::<Audits>::NAME,
    EventTypeServiceServer::<EventTypes>::NAME,
    WriteKeyServiceServer::<WriteKeys>::NAME,
    DeliveryServiceServer::<Deliveries>::NAME,
];

/// Largest message of health and reflection, in bytes.
const PROBE_MESSAGE_BYTES_MAX: usize = 4 << 10;
/// Largest message of services whose requests are questions and names, in
/// bytes. (Events, metrics and schemas may be as large as is configured.)
const QUESTION_BYTES_MAX: usize = 64 << 10;

/// Every gRPC method.
///
/// # Errors
/// When the service's own description, for reflection, is broken.
pub(super) fn routes(
    context: &Arc<TransportContext>,
    health: HealthService,
) -> Result<axum::Router, tonic_reflection::server::Error> {
    let bytes_max = context.app.config.message_bytes_max;
    let question_bytes_max = bytes_max.min(QUESTION_BYTES_MAX);
    let probe_bytes_max = PROBE_MESSAGE_BYTES_MAX;
    let shared = || Arc::clone(context);
    let ingest = IngestServiceServer::new(Ingest::new(shared())).accept_compressed(Gzip);
    let query = QueryServiceServer::new(Query::new(shared())).accept_compressed(Gzip);
    let metrics = MetricsServiceServer::new(Metrics::new(shared())).accept_compressed(Gzip);
    let organizations = OrganizationServiceServer::new(Organizations::new(shared())).accept_compressed(Gzip);
    let outcomes = OutcomeServiceServer::new(Outcomes::new(shared())).accept_compressed(Gzip);
    let segments = SegmentServiceServer::new(Segments::new(shared())).accept_compressed(Gzip);
    let audits = AuditServiceServer::new(Audits::new(shared())).accept_compressed(Gzip);
    let event_types = EventTypeServiceServer::new(EventTypes::new(shared())).accept_compressed(Gzip);
    let write_keys = WriteKeyServiceServer::new(WriteKeys::new(shared())).accept_compressed(Gzip);
    let deliveries = DeliveryServiceServer::new(Deliveries::new(shared())).accept_compressed(Gzip);
    let methods = Arc::new(Methods::default());
    let router = axum::Router::new();
    let router = route(router, ingest.max_decoding_message_size(bytes_max), context, &methods);
    let router = route(router, query.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, metrics.max_decoding_message_size(bytes_max), context, &methods);
    let router = route(router, organizations.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, outcomes.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, segments.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, audits.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, event_types.max_decoding_message_size(bytes_max), context, &methods);
    let router = route(router, write_keys.max_decoding_message_size(question_bytes_max), context, &methods);
    let router = route(router, deliveries.max_decoding_message_size(bytes_max), context, &methods);
    let router = route(router, LogsServer::new(shared(), bytes_max), context, &methods);
    let router = route(router, health.max_decoding_message_size(probe_bytes_max), context, &methods);
    let router = route(router, reflection().build_v1()?.max_decoding_message_size(probe_bytes_max), context, &methods);
    Ok(route(router, reflection().build_v1alpha()?.max_decoding_message_size(probe_bytes_max), context, &methods))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Each service is wrapped by itself: around the whole router, grpc-web would
/// answer 400 to every REST request over HTTP/1.1.
fn route<S>(router: axum::Router, service: S, context: &Arc<TransportContext>, methods: &Arc<Methods>) -> axum::Router
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    router.route(&format!("/{}/{{*method}}", S::NAME), post_service(AuthLayer::new(service, context, methods)))
}

/// Who sent a request.
///
/// # Errors
/// When the method was let through without asking, which no method of ours is.
fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, tonic::Status> {
    request.extensions().get::<Caller>().cloned().ok_or_else(|| status::of(Error::internal()))
}
