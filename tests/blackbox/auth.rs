//! Every RPC and every route refuses every bad token, and says so exactly.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use jsonwebtoken::Algorithm;
use prost::Message;
use reqwest::Method;
use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::events::{click, now_millis, timestamp, window};
use crate::service::TestService;
use crate::tokens::{Signer, changed, channel, claims, key_set, now, unsigned};

const MISSING: &str = "a bearer token is required";
const MALFORMED: &str = "the token is malformed";
const UNTRUSTED: &str = "the token's signature cannot be verified";
const EXPIRED: &str = "the token has expired";
const NOT_YET: &str = "the token is not valid yet";

/// Every RPC, what it takes, and a request that it can answer.
fn rpcs() -> Vec<(&'static str, Option<&'static str>, Vec<u8>)> {
    let day = || window(now_millis() - 3_600_000, now_millis());
    let batch = || vec![click("rpc", now_millis())];
    let stats = proto::GetCampaignStatsRequest { campaign_id: "c".to_owned(), window: day(), ..Default::default() };
    let users = proto::GetDailyActiveUsersRequest { window: day() };
    let audit = proto::AuditRequest { window: day(), repair: false, unproven_removals_max: 0 };
    let undo = proto::UndoRepairRequest { repair_id: "known".to_owned() };
    let event = proto::GetEventRequest { event_id: "known".to_owned() };
    let summary = proto::GetSummaryRequest { window: day(), ..Default::default() };
    let value = proto::MetricValue { date: "2026-01-01".to_owned(), name: "x".to_owned(), value: 1.0 };
    let values = proto::PutMetricsRequest { metrics: vec![value] };
    let acme = proto::Organization { name: "Acme".to_owned(), ..Default::default() };
    let acme = proto::PutOrganizationRequest { organization: Some(acme) };
    let user = proto::User { user_id: "u".to_owned(), ..Default::default() };
    let user = proto::PutUserRequest { user: Some(user) };
    let same_user = proto::GetUserRequest { user_id: "u".to_owned() };
    let member = proto::Member { user_id: "u".to_owned(), ..Default::default() };
    let member = proto::PutMemberRequest { org_id: "acme".to_owned(), member: Some(member) };
    let stream = proto::IngestRequest { events: batch(), ..Default::default() };
    let unary = proto::IngestBatchRequest { events: batch(), ..Default::default() };
    let event_type = proto::RegisterEventTypeRequest { r#type: "known".to_owned(), ..Default::default() };
    let known_type = proto::GetEventTypeRequest { r#type: "known".to_owned(), version: 0 };
    let write_key = proto::CreateWriteKeyRequest { name: "website".to_owned() };
    let known_key = proto::RevokeWriteKeyRequest { key_id: "known".to_owned() };
    let trial = proto::subscription_handler::Handler::Trial(proto::TrialHandler {});
    let subscription = proto::CreateSubscriptionRequest {
        name: "trial".to_owned(),
        handler: Some(proto::SubscriptionHandler { handler: Some(trial) }),
        ..Default::default()
    };
    let none = || "none".to_owned();
    let letters = || (none(), vec![1]);
    let replay = letters();
    let replay = proto::ReplayDeadLettersRequest { name: replay.0, numbers: replay.1, all: false };
    let discard = letters();
    let discard = proto::DiscardDeadLettersRequest { name: discard.0, numbers: discard.1, all: false };
    // Field 1 of all others is the name.
    let named = || proto::GetSubscriptionRequest { name: none() }.encode_to_vec();
    vec![
        ("tallyhouse.v1.IngestService/Ingest", Some("ingest"), stream.encode_to_vec()),
        ("tallyhouse.v1.IngestService/IngestBatch", Some("ingest"), unary.encode_to_vec()),
        ("tallyhouse.v1.QueryService/GetCampaignStats", Some("read"), stats.encode_to_vec()),
        ("tallyhouse.v1.QueryService/GetTopUsers", Some("read"), vec![]),
        ("tallyhouse.v1.QueryService/GetTopCampaigns", Some("read"), vec![]),
        ("tallyhouse.v1.QueryService/GetDailyActiveUsers", Some("read"), users.encode_to_vec()),
        ("tallyhouse.v1.QueryService/ListEvents", Some("read"), vec![]),
        ("tallyhouse.v1.QueryService/GetEvent", Some("read"), event.encode_to_vec()),
        ("tallyhouse.v1.MetricsService/GetSummary", Some("read"), summary.encode_to_vec()),
        ("tallyhouse.v1.MetricsService/PutMetrics", Some("ingest"), values.encode_to_vec()),
        ("tallyhouse.v1.OrganizationService/PutOrganization", Some("admin"), acme.encode_to_vec()),
        ("tallyhouse.v1.OrganizationService/GetOrganization", Some("admin"), vec![]),
        ("tallyhouse.v1.OrganizationService/PutUser", Some("admin"), user.encode_to_vec()),
        ("tallyhouse.v1.OrganizationService/GetUser", Some("admin"), same_user.encode_to_vec()),
        ("tallyhouse.v1.OrganizationService/PutMember", Some("admin"), member.encode_to_vec()),
        ("tallyhouse.v1.OrganizationService/ListMembers", Some("admin"), vec![]),
        ("tallyhouse.v1.OrganizationService/GetTopOrganizations", Some("admin"), vec![]),
        ("tallyhouse.v1.OutcomeService/Watch", Some("read"), vec![]),
        ("tallyhouse.v1.SegmentService/ListSegments", Some("admin"), vec![]),
        ("tallyhouse.v1.SegmentService/RetryParkedSegments", Some("admin"), vec![]),
        ("tallyhouse.v1.AuditService/Audit", Some("admin"), audit.encode_to_vec()),
        ("tallyhouse.v1.AuditService/GetAuditStatus", Some("admin"), vec![]),
        ("tallyhouse.v1.AuditService/ListRepairs", Some("admin"), vec![]),
        ("tallyhouse.v1.AuditService/UndoRepair", Some("admin"), undo.encode_to_vec()),
        ("tallyhouse.v1.EventTypeService/RegisterEventType", Some("admin"), event_type.encode_to_vec()),
        ("tallyhouse.v1.EventTypeService/ListEventTypes", Some("read"), vec![]),
        ("tallyhouse.v1.EventTypeService/GetEventType", Some("read"), known_type.encode_to_vec()),
        ("tallyhouse.v1.WriteKeyService/CreateWriteKey", Some("admin"), write_key.encode_to_vec()),
        ("tallyhouse.v1.WriteKeyService/ListWriteKeys", Some("admin"), vec![]),
        ("tallyhouse.v1.WriteKeyService/RevokeWriteKey", Some("admin"), known_key.encode_to_vec()),
        ("tallyhouse.v1.DeliveryService/Consume", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/CreateSubscription", Some("admin"), subscription.encode_to_vec()),
        ("tallyhouse.v1.DeliveryService/GetSubscription", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/ListSubscriptions", Some("read"), vec![]),
        ("tallyhouse.v1.DeliveryService/UpdateSubscription", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/DeleteSubscription", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/PauseSubscription", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/ResumeSubscription", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/GetSubscriptionStatus", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/GetDeliveryStatus", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/GetUserStatus", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/PauseUser", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/ResumeUser", Some("admin"), named()),
        ("tallyhouse.v1.DeliveryService/ListDeadLetters", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/GetDeadLetter", Some("read"), named()),
        ("tallyhouse.v1.DeliveryService/ReplayDeadLetters", Some("admin"), replay.encode_to_vec()),
        ("tallyhouse.v1.DeliveryService/DiscardDeadLetters", Some("admin"), discard.encode_to_vec()),
        ("opentelemetry.proto.collector.logs.v1.LogsService/Export", Some("ingest"), vec![]),
        ("grpc.health.v1.Health/Check", None, vec![]),
        // Field 7, list_services.
        ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Some("admin"), vec![0x3a, 1, b'*']),
    ]
}

/// Every route, what it takes, and a request that it can answer.
fn routes() -> Vec<(Method, &'static str, Option<&'static str>, &'static str)> {
    let stats = "/stats?campaign_id=c&from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z";
    let summary = "/api/v1/metrics/summary?start_date=2026-01-01&end_date=2026-01-02";
    let dau = "/api/v1/metrics/dau?start_date=2026-01-01&end_date=2026-01-02";
    let member = "/api/v1/organizations/acme/members/u";
    vec![
        (Method::POST, "/events", Some("ingest"), "/events"),
        (Method::GET, "/events", Some("read"), "/events"),
        (Method::GET, "/events/{event_id}", Some("read"), "/events/known"),
        (Method::GET, "/stats", Some("read"), stats),
        (Method::GET, "/users/top", Some("read"), "/users/top"),
        (Method::GET, "/campaigns/top", Some("read"), "/campaigns/top"),
        (Method::POST, "/api/v1/events", Some("ingest"), "/api/v1/events"),
        (Method::GET, "/api/v1/event-types", Some("read"), "/api/v1/event-types"),
        (Method::PUT, "/api/v1/event-types/{type}", Some("admin"), "/api/v1/event-types/known"),
        (Method::GET, "/api/v1/event-types/{type}", Some("read"), "/api/v1/event-types/known"),
        (Method::GET, "/api/v1/events", Some("read"), "/api/v1/events"),
        (Method::GET, "/api/v1/events/{event_id}", Some("read"), "/api/v1/events/known"),
        (Method::POST, "/api/v1/metrics", Some("ingest"), "/api/v1/metrics"),
        (Method::GET, "/api/v1/metrics/summary", Some("read"), summary),
        (Method::GET, "/api/v1/metrics/dau", Some("read"), dau),
        (Method::GET, "/api/v1/users/top", Some("read"), "/api/v1/users/top"),
        (Method::GET, "/api/v1/campaigns/top", Some("read"), "/api/v1/campaigns/top"),
        (Method::GET, "/api/v1/organizations/top", Some("admin"), "/api/v1/organizations/top"),
        (Method::PUT, "/api/v1/organizations/{org_id}", Some("admin"), "/api/v1/organizations/acme"),
        (Method::GET, "/api/v1/organizations/{org_id}", Some("admin"), "/api/v1/organizations/acme"),
        (Method::PUT, "/api/v1/organizations/{org_id}/members/{user_id}", Some("admin"), member),
        (Method::GET, "/api/v1/organizations/{org_id}/members", Some("admin"), "/api/v1/organizations/acme/members"),
        (Method::PUT, "/api/v1/users/{user_id}", Some("admin"), "/api/v1/users/u"),
        (Method::GET, "/api/v1/users/{user_id}", Some("admin"), "/api/v1/users/u"),
        (Method::POST, "/api/v1/write-keys", Some("admin"), "/api/v1/write-keys"),
        (Method::GET, "/api/v1/write-keys", Some("admin"), "/api/v1/write-keys"),
        (Method::DELETE, "/api/v1/write-keys/{key_id}", Some("admin"), "/api/v1/write-keys/known"),
        (Method::POST, "/api/v1/subscriptions", Some("admin"), "/api/v1/subscriptions"),
        (Method::GET, "/api/v1/subscriptions", Some("read"), "/api/v1/subscriptions"),
        (Method::GET, "/api/v1/subscriptions/{name}", Some("read"), "/api/v1/subscriptions/known"),
        (Method::PATCH, "/api/v1/subscriptions/{name}", Some("admin"), "/api/v1/subscriptions/known"),
        (Method::POST, "/api/v1/subscriptions/{name}/pause", Some("admin"), "/api/v1/subscriptions/known/pause"),
        (Method::POST, "/api/v1/subscriptions/{name}/resume", Some("admin"), "/api/v1/subscriptions/known/resume"),
        (Method::GET, "/api/v1/subscriptions/{name}/status", Some("read"), "/api/v1/subscriptions/known/status"),
        (
            Method::GET,
            "/api/v1/subscriptions/{name}/events/{event_id}",
            Some("read"),
            "/api/v1/subscriptions/known/events/e",
        ),
        (
            Method::GET,
            "/api/v1/subscriptions/{name}/users/{user_id}",
            Some("read"),
            "/api/v1/subscriptions/known/users/u",
        ),
        (
            Method::POST,
            "/api/v1/subscriptions/{name}/users/{user_id}/pause",
            Some("admin"),
            "/api/v1/subscriptions/known/users/u/pause",
        ),
        (
            Method::POST,
            "/api/v1/subscriptions/{name}/users/{user_id}/resume",
            Some("admin"),
            "/api/v1/subscriptions/known/users/u/resume",
        ),
        (
            Method::GET,
            "/api/v1/subscriptions/{name}/dead-letters",
            Some("read"),
            "/api/v1/subscriptions/known/dead-letters",
        ),
        (
            Method::GET,
            "/api/v1/subscriptions/{name}/dead-letters/{number}",
            Some("read"),
            "/api/v1/subscriptions/known/dead-letters/1",
        ),
        (
            Method::POST,
            "/api/v1/subscriptions/{name}/dead-letters/replay",
            Some("admin"),
            "/api/v1/subscriptions/known/dead-letters/replay",
        ),
        (
            Method::POST,
            "/api/v1/subscriptions/{name}/dead-letters/discard",
            Some("admin"),
            "/api/v1/subscriptions/known/dead-letters/discard",
        ),
        (Method::DELETE, "/api/v1/subscriptions/{name}", Some("admin"), "/api/v1/subscriptions/other"),
        (Method::GET, "/healthz", None, "/healthz"),
        (Method::GET, "/readyz", None, "/readyz"),
        (Method::GET, "/metrics", Some("admin"), "/metrics"),
        (Method::GET, "/openapi.json", None, "/openapi.json"),
    ]
}

struct Keys {
    rsa: Signer,
    ec: Signer,
    ed: Signer,
}

impl Keys {
    fn new() -> Self {
        Self { rsa: Signer::rsa("r"), ec: Signer::ec("e"), ed: Signer::ed("d") }
    }

    async fn service(&self, dir: &tempfile::TempDir) -> TestService {
        let path = dir.path().join("keys.json");
        std::fs::write(&path, key_set(&[&self.rsa, &self.ec, &self.ed])).unwrap();
        let settings = [
            ("TALLYHOUSE_AUTH_JWKS_FILE", path.to_str().unwrap()),
            ("TALLYHOUSE_AUTH_ISSUER", "https://issuer"),
            ("TALLYHOUSE_AUTH_AUDIENCE", "tallyhouse"),
            ("TALLYHOUSE_OPERATOR_ORG_ID", "acme"),
        ];
        TestService::with(&settings).await
    }

    /// Tokens that are refused whatever they are shown for, and what is said.
    fn bad_tokens(&self) -> Vec<(&'static str, Option<String>, String)> {
        let good = || full_claims("acme", "ingest read admin");
        let with = |claim: &str, value: Option<Value>| Some(self.rsa.sign(&changed(good(), claim, value)));
        let public = self.rsa.jwk();
        let confused = |secret: &str| Some(Signer::secret(secret).named("r").sign(&good()));
        let claim = |name: &str| format!("the token's claim '{name}' is not accepted");
        let all = vec![
            ("no token", None, MISSING.to_owned()),
            ("garbage", Some("garbage".to_owned()), MALFORMED.to_owned()),
            ("three parts of garbage", Some("a.b.c".to_owned()), MALFORMED.to_owned()),
            ("too long", Some("a".repeat(10_000)), MALFORMED.to_owned()),
            ("expired", with("exp", Some(json!(now() - 60))), EXPIRED.to_owned()),
            ("not yet valid", with("nbf", Some(json!(now() + 300))), NOT_YET.to_owned()),
            ("wrong key", Some(Signer::rsa("r").sign(&good())), UNTRUSTED.to_owned()),
            ("unknown key", Some(Signer::ec("other").sign(&good())), UNTRUSTED.to_owned()),
            ("another key's name", Some(Signer::ec("r").sign(&good())), UNTRUSTED.to_owned()),
            ("wrong algorithm", Some(self.rsa.by(Algorithm::RS512).sign(&good())), UNTRUSTED.to_owned()),
            ("none", Some(unsigned(&good(), "r")), UNTRUSTED.to_owned()),
            ("RS/HS confusion: the key", confused(&public.to_string()), UNTRUSTED.to_owned()),
            ("RS/HS confusion: n", confused(public["n"].as_str().unwrap()), UNTRUSTED.to_owned()),
            ("RS/HS confusion: nothing", confused(""), UNTRUSTED.to_owned()),
            ("no org_id", with("org_id", None), claim("org_id")),
            ("a wrong org_id", with("org_id", Some(json!("a b"))), claim("org_id")),
            ("no exp", with("exp", None), claim("exp")),
            ("wrong issuer", with("iss", Some(json!("https://other"))), claim("iss")),
            ("wrong audience", with("aud", Some(json!(["other"]))), claim("aud")),
        ];
        // A signature that was changed on its way.
        let mut cut = self.ed.sign(&good());
        let last = if cut.ends_with('A') { 'Q' } else { 'A' };
        cut.pop();
        cut.push(last);
        let cut = ("a changed signature", Some(cut), UNTRUSTED.to_owned());
        all.into_iter().chain([cut]).collect()
    }
}

fn full_claims(org_id: &str, scope: &str) -> Value {
    let claims = changed(claims(org_id, scope), "iss", Some(json!("https://issuer")));
    changed(claims, "aud", Some(json!("tallyhouse")))
}

/// Every scope but this one.
fn other_scopes(scope: &str) -> String {
    ["ingest", "read", "admin"].into_iter().filter(|other| *other != scope).collect::<Vec<_>>().join(" ")
}

/// Calls by gRPC or grpc-web, and returns the status: that of a refusal, which
/// is in the headers, or of an answer's end. A stream without an end is OK.
async fn call(service: &TestService, web: bool, rpc: &str, message: &[u8], token: Option<&str>) -> Status {
    // Reading the system's certificates takes longer than a call.
    let client = reqwest::Client::builder().tls_certs_only([]);
    let client = if web { client } else { client.http2_prior_knowledge() }.build().unwrap();
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(message);
    let content_type = if web { "application/grpc-web+proto" } else { "application/grpc" };
    let request =
        client.post(format!("{}/{rpc}", service.url)).header("content-type", content_type).header("te", "trailers");
    let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
    let answer = request.body(body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{rpc}");
    if let Some(status) = Status::from_header_map(answer.headers()) {
        return status;
    }
    if !web || rpc.ends_with("/Watch") {
        return Status::ok("");
    }
    let body = answer.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&body);
    let code = text.rsplit("grpc-status:").next().unwrap().trim_start().chars().take_while(char::is_ascii_digit);
    let code: String = code.collect();
    Status::new(Code::from(code.parse::<i32>().unwrap()), text.into_owned())
}

fn assert_refused(status: &Status, code: Code, reason: &str, message: &str, what: &str) {
    let details = status.get_error_details();
    let info = details.error_info().map(|info| (info.reason.clone(), info.domain.clone()));
    assert_eq!((status.code(), status.message()), (code, message), "{what}");
    assert_eq!(info, Some((reason.to_owned(), "tallyhouse".to_owned())), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_refuses_every_bad_token() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().unwrap());
    let service = keys.service(&dir).await;
    let all: BTreeSet<String> = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS)
        .unwrap()
        .file
        .iter()
        .flat_map(|file| file.service.iter().map(move |service| (file.package(), service)))
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| (package, service.name(), method.name()))
        })
        .map(|(package, service, method)| format!("{package}.{service}/{method}"))
        .collect();
    let listed = rpcs().into_iter().map(|(rpc, ..)| rpc.to_owned()).filter(|rpc| rpc.starts_with("tallyhouse"));
    assert_eq!(listed.collect::<BTreeSet<_>>(), all, "a new RPC needs a place in this test");

    let known = proto::IngestBatchRequest {
        events: vec![click("known", now_millis())],
        durability: proto::Durability::Stored.into(),
        ..Default::default()
    };
    let token = keys.rsa.sign(&full_claims("acme", "ingest"));
    let stored =
        call(&service, true, "tallyhouse.v1.IngestService/IngestBatch", &known.encode_to_vec(), Some(&token)).await;
    assert_eq!(stored.code(), Code::Ok);
    for (rpc, scope, message) in rpcs() {
        for web in [false, true] {
            let Some(scope) = scope else {
                let status = call(&service, web, rpc, &message, Some("garbage")).await;
                assert_eq!(status.code(), Code::Ok, "{rpc}");
                continue;
            };
            for (what, token, said) in keys.bad_tokens() {
                let status = call(&service, web, rpc, &message, token.as_deref()).await;
                let what = format!("{rpc}, web: {web}, {what}");
                assert_refused(&status, Code::Unauthenticated, "UNAUTHENTICATED", &said, &what);
            }
            let token = keys.ec.sign(&full_claims("acme", &other_scopes(scope)));
            let status = call(&service, web, rpc, &message, Some(&token)).await;
            let said = format!("the token does not have the scope '{scope}'");
            assert_refused(&status, Code::PermissionDenied, "PERMISSION_DENIED", &said, rpc);
            for signer in [&keys.rsa, &keys.ec, &keys.ed] {
                let token = signer.sign(&full_claims("acme", scope));
                // Only one audit runs at a time, and the last one may not have ended.
                crate::service::eventually(rpc, || async {
                    let status = call(&service, web, rpc, &message, Some(&token)).await;
                    let is_busy = rpc.ends_with("/Audit") && status.code() == Code::ResourceExhausted;
                    // There is no repair to take back, no such key, and no such subscription but the one made here.
                    let of_deliveries = rpc.contains("DeliveryService");
                    let names_none = of_deliveries || rpc.ends_with("/UndoRepair") || rpc.ends_with("/RevokeWriteKey");
                    let is_there = rpc.ends_with("/CreateSubscription") && status.code() == Code::Aborted;
                    let is_let_in =
                        status.code() == Code::Ok || is_there || names_none && status.code() == Code::NotFound;
                    assert!(is_let_in || is_busy, "{rpc}, web: {web}: {status}");
                    !is_busy
                })
                .await;
            }
        }
    }
    let status = call(&service, true, "tallyhouse.v1.QueryService/Other", &[], None).await;
    assert_eq!(status.code(), Code::Unimplemented);
}

fn body(id: &str, org_id: Option<&str>) -> Value {
    let occurred_at = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    let mut body =
        json!({ "event_id": id, "type": "click", "campaign_id": "c", "source": "web", "occurred_at": occurred_at });
    if let Some(org_id) = org_id {
        body["org_id"] = json!(org_id);
    }
    body
}

/// A body that a route takes.
fn payload(path: &str) -> Value {
    match path.split('?').next().unwrap_or_default() {
        "/api/v1/events" => json!({ "events": [crate::analytics::event("rest-v1")] }),
        "/api/v1/metrics" => json!({ "metrics": [{ "date": "2026-01-01", "name": "x", "value": 1 }] }),
        "/api/v1/organizations/acme" => json!({ "name": "Acme" }),
        "/api/v1/write-keys" => json!({ "name": "website" }),
        "/api/v1/subscriptions" => json!({ "name": "known", "handler": { "type": "trial" } }),
        path if path.ends_with("/dead-letters/replay") || path.ends_with("/dead-letters/discard") => {
            json!({ "numbers": [1] })
        }
        path if path.starts_with("/api/v1/") => json!({}),
        _ => body("rest", None),
    }
}

/// Status, `WWW-Authenticate` and body.
async fn ask(service: &TestService, method: &Method, path: &str, token: Option<&str>) -> (u16, String, Value) {
    let request = service.http.request(method.clone(), format!("{}{path}", service.url));
    let request = if *method == Method::GET { request } else { request.json(&payload(path)) };
    let request = if let Some(token) = token { request.bearer_auth(token) } else { request };
    let answer = request.send().await.unwrap();
    let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    let status = answer.status().as_u16();
    // Metrics are no JSON.
    let body = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default();
    (status, challenge.unwrap_or_default(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_refuses_every_bad_token() {
    let (keys, dir) = (Keys::new(), tempfile::tempdir().unwrap());
    let service = keys.service(&dir).await;
    let (_, description) = service.get("/openapi.json").await;
    let all: BTreeSet<(String, String)> = description["paths"]
        .as_object()
        .unwrap()
        .iter()
        // By user and password, not by a token: see `dashboard::statements_need_the_analysts_password`.
        .filter(|(path, _)| *path != "/api/v1/sql")
        .flat_map(|(path, methods)| methods.as_object().unwrap().keys().map(|m| (m.to_uppercase(), path.clone())))
        .collect();
    let listed = routes().into_iter().map(|(method, path, ..)| (method.to_string(), path.to_owned()));
    assert_eq!(listed.collect::<BTreeSet<_>>(), all, "a new route needs a place in this test");

    let mut ingest = proto::ingest_service_client::IngestServiceClient::new(
        channel(&service, &keys.rsa.sign(&full_claims("acme", "ingest"))).await,
    );
    let request = proto::IngestBatchRequest {
        events: vec![click("known", now_millis())],
        durability: proto::Durability::Stored.into(),
        ..Default::default()
    };
    ingest.ingest_batch(request).await.unwrap();

    for (method, path, scope, url) in routes() {
        let Some(scope) = scope else {
            for token in [None, Some("garbage")] {
                assert_eq!(ask(&service, &method, url, token).await.0, 200, "{path}");
            }
            continue;
        };
        let said = |code: &str, message: &str| json!({ "error": { "code": code, "message": message, "details": [] } });
        for (what, token, message) in keys.bad_tokens() {
            let (status, challenge, text) = ask(&service, &method, url, token.as_deref()).await;
            assert_eq!((status, text), (401, said("UNAUTHENTICATED", &message)), "{method} {path}, {what}");
            let expected = match token {
                None => "Bearer realm=\"tallyhouse\"".to_owned(),
                Some(_) => {
                    format!("Bearer realm=\"tallyhouse\", error=\"invalid_token\", error_description=\"{message}\"")
                }
            };
            assert_eq!(challenge, expected, "{method} {path}, {what}");
        }
        let token = keys.ed.sign(&full_claims("acme", &other_scopes(scope)));
        let (status, challenge, text) = ask(&service, &method, url, Some(&token)).await;
        let message = format!("the token does not have the scope '{scope}'");
        assert_eq!((status, text), (403, said("PERMISSION_DENIED", &message)), "{method} {path}");
        assert_eq!(challenge, format!("Bearer realm=\"tallyhouse\", error=\"insufficient_scope\", scope=\"{scope}\""));

        let joint = if url.contains('?') { '&' } else { '?' };
        let token = keys.ed.sign(&full_claims("acme", scope));
        for (org_id, is_own) in [("acme", true), ("beta", false), ("", false), ("acme&org_id=beta", false)] {
            let (status, _, text) = ask(&service, &method, &format!("{url}{joint}org_id={org_id}"), Some(&token)).await;
            // There is no such key, event, dead letter or subscription; there is one that was just made.
            let is_missing = method == Method::DELETE || path.contains("/events/") || path.contains("/{number}");
            let is_there = path == "/api/v1/subscriptions" && status == 409;
            let is_let_in = status < 300 || is_there || is_missing && status == 404;
            assert_eq!(is_let_in, is_own, "{method} {path} of {org_id}: {text}");
            if !is_own {
                let message = "the request names another organization than the token";
                assert_eq!((status, text), (403, said("PERMISSION_DENIED", message)));
            }
        }
    }
    another_organization_is_refused(&service, &keys.ed).await;
    let token = keys.ed.sign(&full_claims("acme", "ingest"));
    for (org_id, expected) in [(Some("acme"), 202), (Some("beta"), 403), (Some(""), 403), (None, 202)] {
        let whole = |mut body: Value| {
            body["org_id"] = json!(org_id);
            body
        };
        for (path, body) in [
            ("/events", body("body", org_id)),
            ("/api/v1/events", whole(json!({ "events": [crate::analytics::event(&format!("whole-{org_id:?}"))] }))),
            ("/api/v1/events", json!({ "events": [whole(crate::analytics::event(&format!("part-{org_id:?}")))] })),
        ] {
            let request = service.http.post(format!("{}{path}", service.url)).bearer_auth(&token);
            assert_eq!(request.json(&body).send().await.unwrap().status(), expected, "{path}: {org_id:?}");
        }
    }
}

/// In paths, in bodies, and in messages.
async fn another_organization_is_refused(service: &TestService, signer: &Signer) {
    let token = signer.sign(&full_claims("acme", "ingest admin"));
    let message = "the request names another organization than the token";
    let expected = json!({ "error": { "code": "PERMISSION_DENIED", "message": message, "details": [] } });
    for (method, path) in [
        (Method::PUT, "/api/v1/organizations/beta"),
        (Method::GET, "/api/v1/organizations/beta"),
        (Method::GET, "/api/v1/organizations/beta/members"),
        (Method::PUT, "/api/v1/organizations/beta/members/u"),
    ] {
        let (status, _, text) = ask(service, &method, path, Some(&token)).await;
        assert_eq!((status, text), (403, expected.clone()), "{method} {path}");
    }
    for (method, path) in [
        (Method::POST, "/api/v1/metrics"),
        (Method::PUT, "/api/v1/organizations/acme"),
        (Method::PUT, "/api/v1/organizations/acme/members/u"),
        (Method::PUT, "/api/v1/users/u"),
    ] {
        for (org_id, status) in [("acme", 200), ("beta", 403)] {
            let mut body = payload(path);
            body["org_id"] = json!(org_id);
            let request = service.http.request(method.clone(), format!("{}{path}", service.url)).bearer_auth(&token);
            assert_eq!(request.json(&body).send().await.unwrap().status(), status, "{method} {path} of {org_id}");
        }
    }
    let beta = || "beta".to_owned();
    let organization = proto::Organization { org_id: beta(), name: "x".to_owned(), ..Default::default() };
    let put = proto::PutOrganizationRequest { organization: Some(organization) };
    let member = proto::Member { user_id: "u".to_owned(), ..Default::default() };
    let member = proto::PutMemberRequest { org_id: beta(), member: Some(member) };
    let list = proto::ListMembersRequest { org_id: beta(), ..Default::default() };
    for (rpc, request) in [
        ("PutOrganization", put.encode_to_vec()),
        ("GetOrganization", proto::GetOrganizationRequest { org_id: beta() }.encode_to_vec()),
        ("PutMember", member.encode_to_vec()),
        ("ListMembers", list.encode_to_vec()),
    ] {
        let rpc = format!("tallyhouse.v1.OrganizationService/{rpc}");
        let status = call(service, true, &rpc, &request, Some(&token)).await;
        assert_refused(&status, Code::PermissionDenied, "PERMISSION_DENIED", message, &rpc);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_token_expires() {
    let secret = crate::tokens::SECRET;
    let service =
        TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", secret), ("TALLYHOUSE_AUTH_LEEWAY_SECONDS", "0")]).await;
    let short = changed(claims("acme", "ingest read"), "exp", Some(json!(now() + 3)));
    let channel = channel(&service, &Signer::secret(secret).sign(&short)).await;
    let mut tail = proto::outcome_service_client::OutcomeServiceClient::new(channel.clone());
    let mut outcomes = tail.watch(proto::WatchRequest::default()).await.unwrap().into_inner();
    let (requests, received) = tokio::sync::mpsc::channel(4);
    let mut ingest = proto::ingest_service_client::IngestServiceClient::new(channel);
    let stream = tokio_stream::wrappers::ReceiverStream::new(received);
    let mut answers = ingest.ingest(stream).await.unwrap().into_inner();
    let request = proto::IngestRequest { events: vec![click("e", now_millis())], ..Default::default() };
    requests.send(request).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().counts.unwrap().accepted, 1);
    assert!(outcomes.message().await.unwrap().is_some());
    let patience = std::time::Duration::from_secs(15);
    let ended = tokio::time::timeout(patience, answers.message()).await.expect("an end").expect_err("refused");
    assert_refused(&ended, Code::Unauthenticated, "UNAUTHENTICATED", EXPIRED, "ingest");
    let ended = tokio::time::timeout(patience, outcomes.message()).await.expect("an end").expect_err("refused");
    assert_refused(&ended, Code::Unauthenticated, "UNAUTHENTICATED", EXPIRED, "watch");
    assert!(timestamp(now_millis()).seconds >= short["exp"].as_i64().unwrap());
}

#[test]
fn serve_refuses_what_is_not_safe_and_names_the_setting() {
    let check = |settings: &[(&str, &str)], named: &str| {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
            .args(["serve", "--listen", "0.0.0.0:0", "--data-dir"])
            .arg(dir.path())
            .env("TALLYHOUSE_CLICKHOUSE_URL", "http://127.0.0.1:9")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(named) && !said.contains("panicked"), "{said}");
    };
    check(&[], "auth_hs256_secret, auth_jwks_file and auth_jwks_url");
    check(&[("TALLYHOUSE_AUTH_HS256_SECRET", "short")], "auth_hs256_secret must be at least 32 bytes");
    check(&[("TALLYHOUSE_AUTH_HS256_SECRET", &" ".repeat(32))], "auth_hs256_secret repeats too few characters");
    check(&[("TALLYHOUSE_AUTH_HS256_SECRET", "")], "auth_hs256_secret must not be empty");
    check(&[("TALLYHOUSE_AUTH_JWKS_URL", "http://192.0.2.1/keys")], "auth_jwks_url must be an https:// URL");
}

/// The status of a question that requires `read`.
async fn read_with(service: &TestService, token: &str) -> u16 {
    let request = service.http.get(format!("{}/users/top", service.url)).bearer_auth(token);
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_algorithm_that_fits_a_key_is_accepted() {
    let (rsa, other, ec, ed) = (Signer::rsa("r"), Signer::rsa("s"), Signer::ec_384("e"), Signer::ed("d"));
    let pinned = Signer::rsa("p");
    let path = tempfile::tempdir().unwrap();
    let file = path.path().join("keys.json");
    // Sets of Azure and others do not name an algorithm.
    let any = |signer: &Signer| changed(signer.jwk(), "alg", None);
    let set = json!({ "keys": [any(&rsa), any(&other), ec.jwk(), changed(ed.jwk(), "alg", Some(json!("Ed25519"))), pinned.jwk()] });
    std::fs::write(&file, set.to_string()).unwrap();
    let service = TestService::with(&[("TALLYHOUSE_AUTH_JWKS_FILE", file.to_str().unwrap())]).await;
    let good = claims("acme", "read");
    for algorithm in
        [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
    {
        for signer in [&rsa, &other] {
            let by = signer.by(algorithm);
            assert_eq!(read_with(&service, &by.sign(&good)).await, 200, "{algorithm:?}");
            assert_eq!(read_with(&service, &by.unnamed().sign(&good)).await, 200, "{algorithm:?}, unnamed");
        }
        let expected = if algorithm == Algorithm::RS256 { 200 } else { 401 };
        assert_eq!(read_with(&service, &pinned.by(algorithm).sign(&good)).await, expected, "{algorithm:?}, pinned");
    }
    for (signer, alg) in [(&ec, "ES384"), (&ed, "EdDSA"), (&ed, "Ed25519")] {
        let token = signer.sign_with_header(&json!({ "alg": alg }), &good);
        assert_eq!(read_with(&service, &token).await, 200, "{alg}");
    }
    for (what, token) in [
        ("a stranger's, unnamed", Signer::rsa("x").unnamed().sign(&good)),
        ("of another key", other.by(Algorithm::PS256).named("r").sign(&good)),
        ("a wrong algorithm for the key", ec.sign_with_header(&json!({ "alg": "ES256" }), &good)),
        ("an algorithm for a secret", Signer::secret(&any(&rsa).to_string()).sign(&good)),
        ("what must be understood", rsa.sign_with_header(&json!({ "crit": ["exp"] }), &good)),
        ("two parts", rsa.sign(&good).rsplit_once('.').unwrap().0.to_owned()),
        ("four parts", rsa.sign(&good) + ".AA"),
    ] {
        assert_eq!(read_with(&service, &token).await, 401, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_read_by_their_configured_names() {
    let signer = Signer::secret(crate::tokens::SECRET);
    let settings = [
        ("TALLYHOUSE_AUTH_HS256_SECRET", crate::tokens::SECRET),
        ("TALLYHOUSE_AUTH_ORG_CLAIM", "https://issuer.example/org"),
    ];
    let service = TestService::with(&settings).await;
    let org = |scopes: Value| {
        let mut claims = changed(claims("other", ""), "scope", None);
        claims["https://issuer.example/org"] = json!("acme");
        claims.as_object_mut().unwrap().extend(scopes.as_object().unwrap().clone());
        signer.sign(&claims)
    };
    for (scopes, expected) in [
        (json!({ "scope": "read" }), 200),
        (json!({ "scope": ["openid", "read"] }), 200),
        (json!({ "scp": ["read"] }), 200),
        (json!({ "permissions": ["ingest", "read"] }), 200),
        (json!({ "scope": "openid", "permissions": ["read"] }), 403),
        (json!({ "scope": 7 }), 401),
        (json!({}), 403),
    ] {
        assert_eq!(read_with(&service, &org(scopes.clone())).await, expected, "{scopes}");
    }
    let answer = service.http.get(format!("{}/users/top", service.url)).bearer_auth(signer.token("acme", "read"));
    let text = answer.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("the token's claim 'https://issuer.example/org' is not accepted"), "{text}");
}
