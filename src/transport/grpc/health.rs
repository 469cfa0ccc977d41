//! grpc.health.v1: SERVING while events are accepted.
//!
//! While every event is refused, the whole service (the empty name) and the ingest service are NOT_SERVING;
//! when the service stops, all are. Reasons that only degrade the service, such as an unreachable
//! ClickHouse, do not appear here; `/readyz` lists them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService as TonicHealthService};

use super::SERVICE_NAMES;
use crate::health::{Health as Reasons, Status};

/// The service that events come in by.
const INGEST: &str = "tallyhouse.v1.IngestService";
/// How often the reasons are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The service.
pub(in crate::transport) type HealthService = HealthServer<TonicHealthService>;

/// What the service says of itself.
pub(in crate::transport) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Reports SERVING for the whole and for every service.
    pub(in crate::transport) async fn new() -> (Self, HealthService) {
        let health = Self { reporter: HealthReporter::new() };
        health.say(ServingStatus::Serving).await;
        let service = HealthServer::new(TonicHealthService::from_health_reporter(health.reporter.clone()));
        (health, service)
    }

    /// Follows the reasons. Never returns.
    pub(in crate::transport) async fn follow(&self, reasons: &Arc<Reasons>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = ServingStatus::Serving;
        loop {
            looks.tick().await;
            let reasons = Arc::clone(reasons);
            // The checks look at the disk.
            let found = tokio::task::spawn_blocking(move || Status::of(&reasons.reasons())).await;
            let is_refusing = matches!(found, Ok(Status::Refusing));
            let status = if is_refusing { ServingStatus::NotServing } else { ServingStatus::Serving };
            if status != told {
                told = status;
                for service in ["", INGEST] {
                    self.reporter.set_service_status(service, status).await;
                }
            }
        }
    }

    /// Reports NOT_SERVING.
    pub(in crate::transport) async fn stopping(&self) {
        self.say(ServingStatus::NotServing).await;
    }

    /// Ends the streams of watchers.
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
