//! Endpoints for other systems' libraries, and write keys. The libraries themselves: `clients.rs`.

use serde_json::{Value, json};
use tallyhouse::transport::proto::{self, IngestBatchRequest};
use tonic::Code;

use crate::analytics::rfc3339;
use crate::events::{click, now_millis};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer, channel};

const CLOUDEVENT: &str = "application/cloudevents+json";

struct Keyed {
    service: TestService,
    key: String,
    key_id: String,
}

impl Keyed {
    /// A service with authentication, and a write key of `acme`.
    async fn new() -> Self {
        let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
        let (key_id, key) = create(&service, "acme").await;
        Self { service, key, key_id }
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let url = format!("{}{path}", self.service.url);
        let request = self.service.http.post(url).header("content-type", content_type).body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn stored(&self, org_id: &str) -> String {
        self.service.sql(&format!("SELECT uniqExact(event_id) FROM events WHERE org_id = '{org_id}'")).await
    }
}

async fn create(service: &TestService, org_id: &str) -> (String, String) {
    let token = Signer::secret(SECRET).token(org_id, "admin");
    let url = format!("{}/api/v1/write-keys", service.url);
    let request = service.http.post(url).bearer_auth(token).json(&json!({ "name": "website" }));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let created: Value = answer.json().await.unwrap();
    (created["key_id"].as_str().unwrap().to_owned(), created["text"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_key_may_only_send_events() {
    let keyed = Keyed::new().await;
    let service = &keyed.service;
    let beta = create(service, "beta").await.1;
    for (key, org_id) in [(&keyed.key, "acme"), (&beta, "beta")] {
        let mut ingest = proto::ingest_service_client::IngestServiceClient::new(channel(service, key).await);
        let request = IngestBatchRequest { events: vec![click("one", now_millis())], ..Default::default() };
        assert_eq!(ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap().accepted, 1);
        eventually("stored", || async { keyed.stored(org_id).await == "1" }).await;
    }
    for path in ["/events", "/stats?campaign_id=c", "/users/top", "/api/v1/write-keys", "/metrics"] {
        let answer = service.http.get(format!("{}{path}", service.url)).bearer_auth(&keyed.key).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
    let named = json!({ "events": [], "org_id": "beta" });
    let request = service.http.post(format!("{}/api/v1/events", service.url)).bearer_auth(&keyed.key);
    assert!(request.json(&named).send().await.unwrap().status().is_client_error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_is_refused_at_once() {
    let mut keyed = Keyed::new().await;
    let other = create(&keyed.service, "acme").await.1;
    let token = Signer::secret(SECRET).token("acme", "admin");
    let url = format!("{}/api/v1/write-keys/{}", keyed.service.url, keyed.key_id);
    let revoked = keyed.service.http.delete(url).bearer_auth(&token).send().await.unwrap();
    assert_eq!(revoked.status(), 200);
    let beacon = |n: u32| json!({ "events": [{ "event_id": n.to_string(), "event_type": "x", "timestamp": rfc3339(now_millis()) }] });
    for run in 0..2_u32 {
        let status = async |key: &str, n: u32| {
            keyed.post(&format!("/beacon?write_key={key}"), "text/plain", beacon(n).to_string()).await.0
        };
        assert_eq!(status(&keyed.key, 2 * run).await, 401);
        assert_eq!(status(&other, 2 * run + 1).await, 204);
        assert_eq!(status("thw_unknown", 2 * run).await, 401);
        assert_eq!(status("", 2 * run).await, 401);
        keyed.service.kill();
        keyed.service.start().await;
    }
    let listed = keyed.service.http.get(format!("{}/api/v1/write-keys", keyed.service.url)).bearer_auth(&token);
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["write_keys"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(&other), "texts are not kept");
    let stranger = Signer::secret(SECRET).token("beta", "admin");
    let url = format!("{}/api/v1/write-keys/{}", keyed.service.url, keyed.key_id);
    assert_eq!(keyed.service.http.delete(url).bearer_auth(stranger).send().await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn cloudevents_count_once_by_source_and_id() {
    let keyed = Keyed::new().await;
    let event = |id: &str| {
        let time = rfc3339(now_millis() / 60_000 * 60_000);
        json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "sold", "time": time, "data": { "total": 1 } })
    };
    let path = format!("/cloudevents?write_key={}", keyed.key);
    let one = event("1");
    let (status, body) = keyed.post(&path, CLOUDEVENT, one.to_string()).await;
    assert_eq!((status, &body["accepted"]), (202, &json!(1)), "{body}");
    let batch = json!([one, event("2"), { "specversion": "1.0" }]);
    let (status, body) = keyed.post(&path, "application/cloudevents-batch+json", batch.to_string()).await;
    assert_eq!((status, &body["accepted"], &body["duplicates"]), (202, &json!(1), &json!(1)), "{body}");
    assert_eq!(body["rejected"][0]["field"], "id", "{body}");
    let url = format!("{}{path}", keyed.service.url);
    let request = keyed.service.http.post(url).header("content-type", "application/json").body(r#"{"total":1}"#);
    let request = request.header("ce-specversion", "1.0").header("ce-id", "2").header("ce-source", "/shop");
    let request = request.header("ce-type", "sold").header("ce-time", one["time"].as_str().unwrap());
    let body: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(body["duplicates"], 1, "{body}");
    eventually("stored", || async { keyed.stored("acme").await == "2" }).await;
    let (status, _) = keyed.post(&path, CLOUDEVENT, json!({ "id": "3" }).to_string()).await;
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_strangers_cost_little() {
    let keyed = Keyed::new().await;
    // A key in the body is looked for only where formats have one.
    for (path, content_type) in
        [("/cloudevents", CLOUDEVENT), ("/v1/logs", "application/json"), ("/beacon", "text/plain")]
    {
        assert_eq!(keyed.post(path, content_type, "no json").await.0, 401, "{path}");
    }
    // And then only among as many events as a batch may have.
    let many = vec![json!({}); 20_000];
    let (status, body) = keyed.post("/v1/batch", "application/json", json!({ "batch": many }).to_string()).await;
    assert_eq!(status, 413, "{body}");
    let (status, body) = keyed.post("/batch", "application/json", json!({ "batch": many }).to_string()).await;
    assert_eq!(status, 413, "{body}");
    let (path, content_type) = (format!("/cloudevents?write_key={}", keyed.key), "application/cloudevents-batch+json");
    let (status, body) = keyed.post(&path, content_type, json!(many).to_string()).await;
    assert_eq!(status, 413, "{body}");
    let logs = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": many }] }] });
    let path = format!("/v1/logs?write_key={}", keyed.key);
    let (status, body) = keyed.post(&path, "application/json", logs.to_string()).await;
    assert_eq!(status, 413, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_event_loses_no_other() {
    let keyed = Keyed::new().await;
    let time = rfc3339(now_millis());
    let track =
        |id: &str| json!({ "type": "track", "event": "Sold", "messageId": id, "userId": "u", "timestamp": time });
    let body = json!({ "writeKey": keyed.key, "batch": [track("a"), { "type": "dance" }, 5, track("b")] });
    let (status, answer) = keyed.post("/v1/batch", "text/plain", body.to_string()).await;
    assert_eq!((status, &answer["success"], &answer["accepted"]), (200, &json!(true), &json!(2)), "{answer}");
    assert_eq!(answer["rejected"].as_array().unwrap().len(), 2, "{answer}");
    let (status, answer) = keyed.post("/v1/batch", "text/plain", body.to_string()).await;
    assert_eq!((status, &answer["duplicates"]), (200, &json!(2)), "{answer}");
    for (path, bad, expected) in [
        ("/v1/batch", "{", 400),
        ("/v1/batch", "[]", 400),
        ("/v1/track", "{}", 401),
        ("/batch/", "[]", 401),
        ("/capture/", "{\"api_key\":\"thw_other\",\"event\":\"x\"}", 401),
    ] {
        assert_eq!(keyed.post(path, "application/json", bad).await.0, expected, "{path} {bad}");
    }
    let named = format!("/v1/batch?write_key={}", keyed.key);
    assert_eq!(keyed.post(&named, "application/json", r#"{"batch":5}"#).await.0, 422);
    assert_eq!(keyed.post(&named, "application/json", r#"{"batch":[]}"#).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_are_events() {
    use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
    use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
    use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
    use prost::Message as _;

    let keyed = Keyed::new().await;
    let nanos = u64::try_from(now_millis()).unwrap() * 1_000_000;
    let record = |name: &str| LogRecord { event_name: name.to_owned(), time_unix_nano: nanos, ..Default::default() };
    let log_records = vec![record("sold"), record(""), record("returned")];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    let request = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] };
    let mut client = LogsServiceClient::new(channel(&keyed.service, &keyed.key).await);
    let partial = client.export(request.clone()).await.unwrap().into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_log_records, 1, "{partial:?}");
    assert!(partial.error_message.contains("event_name is required"), "{partial:?}");

    let url = format!("{}/v1/logs?write_key={}", keyed.service.url, keyed.key);
    let post = keyed.service.http.post(&url).header("content-type", "application/x-protobuf");
    let answer = post.body(request.encode_to_vec()).send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"application/x-protobuf".parse().unwrap())
    );
    let answer = ExportLogsServiceResponse::decode(answer.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_log_records, 1);
    let as_json = serde_json::to_string(&request).unwrap();
    assert_eq!(keyed.post(&format!("/v1/logs?write_key={}", keyed.key), "application/json", as_json).await.0, 200);
    eventually("stored", || async { keyed.stored("acme").await == "2" }).await;
    let refused = LogsServiceClient::new(channel(&keyed.service, "thw_other").await).export(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_authentication_any_key_will_do() {
    let service = TestService::new().await;
    let body = json!({ "api_key": "phc_anything", "event": "x", "uuid": "e1", "timestamp": rfc3339(now_millis()) });
    let answer = service.http.post(format!("{}/capture/", service.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let foreign = service.http.post(format!("{}/beacon", service.url)).header("origin", "https://other.example");
    assert_eq!(foreign.body("{}").send().await.unwrap().status(), 403, "a page of another origin");
}
