//! grpc.health.v1: SERVING until the service stops.
//!
//! A ClickHouse that is away does not show here: ingest goes on without it.
//! `/readyz` says so.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService as Answers};

use super::SERVICE_NAMES;

/// The service.
pub(in crate::transport) type HealthService = HealthServer<Answers>;

/// What the service says of itself.
pub(in crate::transport) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Says SERVING for the whole and for every service.
    pub(in crate::transport) async fn new() -> (Self, HealthService) {
        let health = Self { reporter: HealthReporter::new() };
        health.say(ServingStatus::Serving).await;
        let service = HealthServer::new(Answers::from_health_reporter(health.reporter.clone()));
        (health, service)
    }

    /// Says NOT_SERVING.
    pub(in crate::transport) async fn stopping(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    /// Ends the streams of those who watch.
    pub(in crate::transport) async fn stopped(&mut self) {
        for service in SERVICE_NAMES.into_iter().chain([""]) {
            self.reporter.clear_service_status(service).await;
        }
    }

    async fn say(&self, status: ServingStatus) {
        for service in SERVICE_NAMES.into_iter().chain([""]) {
            self.reporter.set_service_status(service, status).await;
        }
    }
}
