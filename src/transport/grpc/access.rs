//! The access that each method requires, and which methods take streams. A method that is not listed here is not served.

use super::super::auth::{RequiredAccess, Scope};
use crate::config::Config;

/// The access that a path requires; none if it is not listed.
pub(super) fn need(path: &str, config: &Config) -> Option<RequiredAccess> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let scope = match (service, method) {
        ("grpc.health.v1.Health", _) => return Some(RequiredAccess::Nothing),
        ("grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection", _) => {
            return Some(if config.reflection_open {
                RequiredAccess::Nothing
            } else {
                RequiredAccess::Scope(Scope::Admin)
            });
        }
        ("tallyhouse.v1.IngestService", "Ingest" | "IngestBatch") => Scope::Ingest,
        (
            "tallyhouse.v1.QueryService",
            "GetCampaignStats" | "GetTopUsers" | "GetTopCampaigns" | "GetDailyActiveUsers" | "ListEvents" | "GetEvent",
        ) => Scope::Read,
        ("tallyhouse.v1.MetricsService", "GetSummary") => Scope::Read,
        ("tallyhouse.v1.MetricsService", "PutMetrics") => Scope::Ingest,
        (
            "tallyhouse.v1.OrganizationService",
            "PutOrganization"
            | "GetOrganization"
            | "PutUser"
            | "GetUser"
            | "PutMember"
            | "ListMembers"
            | "GetTopOrganizations",
        ) => Scope::Admin,
        ("tallyhouse.v1.OutcomeService", "Watch") => Scope::Read,
        ("tallyhouse.v1.SegmentService", "ListSegments" | "RetryParkedSegments") => Scope::Admin,
        ("tallyhouse.v1.EventTypeService", "ListEventTypes" | "GetEventType") => Scope::Read,
        ("tallyhouse.v1.EventTypeService", "RegisterEventType") => Scope::Admin,
        ("tallyhouse.v1.AuditService", "Audit" | "GetAuditStatus" | "ListRepairs" | "UndoRepair") => Scope::Admin,
        ("tallyhouse.v1.WriteKeyService", "CreateWriteKey" | "ListWriteKeys" | "RevokeWriteKey") => Scope::Admin,
        (
            "tallyhouse.v1.DeliveryService",
            "GetSubscription"
            | "ListSubscriptions"
            | "GetSubscriptionStatus"
            | "GetDeliveryStatus"
            | "GetUserStatus"
            | "ListDeadLetters"
            | "GetDeadLetter",
        ) => Scope::Read,
        // Whoever acknowledges an event decides that nobody else gets it.
        (
            "tallyhouse.v1.DeliveryService",
            "Consume" | "CreateSubscription" | "UpdateSubscription" | "DeleteSubscription" | "PauseSubscription"
            | "ResumeSubscription" | "PauseUser" | "ResumeUser" | "ReplayDeadLetters" | "DiscardDeadLetters",
        ) => Scope::Admin,
        ("opentelemetry.proto.collector.logs.v1.LogsService", "Export") => Scope::Ingest,
        _ => return None,
    };
    Some(RequiredAccess::Scope(scope))
}

/// Whether the client's side of a method is a stream, which lasts as long as the client wants.
pub(super) fn takes_stream(path: &str) -> bool {
    matches!(path, "/tallyhouse.v1.IngestService/Ingest" | "/tallyhouse.v1.DeliveryService/Consume")
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::transport::proto;

    #[test]
    fn every_method_of_ours_takes_a_scope_and_is_known_to_take_a_stream_if_it_does() {
        let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
        let mut methods = 0;
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    assert!(matches!(need(&path, &Config::default()), Some(RequiredAccess::Scope(_))), "{path}");
                    assert_eq!(takes_stream(&path), method.client_streaming(), "{path}");
                    methods += 1;
                }
            }
        }
        assert_eq!(methods, 47);
        assert_eq!(need("/tallyhouse.v1.IngestService/Other", &Config::default()), None);
        assert_eq!(need("/tallyhouse.v1.OtherService/Ingest", &Config::default()), None);
    }

    #[test]
    fn reflection_is_closed_unless_opened() {
        let config = Config { reflection_open: true, ..Config::default() };
        let path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(need(path, &config), Some(RequiredAccess::Nothing));
        assert_eq!(need(path, &Config::default()), Some(RequiredAccess::Scope(Scope::Admin)));
    }
}
