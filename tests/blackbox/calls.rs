//! Every call has an id and a line, is counted, and may come from a browser's
//! page where that is allowed.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::header::HeaderMap;
use serde_json::Value;
use tallyhouse::instruments::catalogue::{CATALOGUE, Kind};
use tallyhouse::transport::proto::{self, IngestBatchRequest, IngestRequest};
use tokio_stream::StreamExt as _;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::events::{click, clicks, now_millis, window};
use crate::service::{TestService, eventually};
use crate::tokens::{Signer, channel, claims};

/// The lines of calls.
fn lines(service: &TestService) -> Vec<Value> {
    let lines = service.stderr();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "tallyhouse::request").collect()
}

/// The only line with this request id, once it is there.
async fn line(service: &TestService, id: &str) -> Value {
    let of_id = || lines(service).into_iter().filter(|line| line["span"]["request_id"] == id).collect::<Vec<_>>();
    eventually(&format!("a line of {id}"), || async { !of_id().is_empty() }).await;
    let mut found = of_id();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn rest_id(headers: &HeaderMap) -> String {
    headers["x-request-id"].to_str().unwrap().to_owned()
}

fn grpc_id(metadata: &MetadataMap) -> String {
    metadata.get("x-request-id").unwrap().to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_an_id_and_every_call_one_line() {
    let secret = crate::tokens::SECRET;
    let settings = [("TALLYHOUSE_LOG_FORMAT", "json"), ("TALLYHOUSE_AUTH_HS256_SECRET", secret)];
    let service = TestService::with(&settings).await;
    let token = Signer::secret(secret).sign(&claims("acme", "ingest read"));
    let get = |path: &str| service.http.get(format!("{}{path}", service.url));

    // The caller's own id; the route and not the path, and nothing of the query.
    let answer =
        get("/events/some-id?token=hunter2").bearer_auth(&token).header("x-request-id", "mine-1").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), &*rest_id(answer.headers())), (404, "mine-1"));
    let found = line(&service, "mine-1").await;
    let fields = &found["fields"];
    assert_eq!(found["level"], "INFO");
    assert_eq!(fields["method"], "GET");
    assert_eq!(fields["path"], "/events/{event_id}");
    assert_eq!(fields["status"], 404);
    assert_eq!(fields["org_id"], "acme");
    assert!(fields["duration_ms"].as_f64().unwrap() > 0.0, "{fields}");

    // One that is made, where there is none or it cannot be one; on errors too.
    let answer = get("/nowhere?token=hunter2").header("x-request-id", "not visible").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    let id = rest_id(answer.headers());
    assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
    assert_eq!(line(&service, &id).await["fields"]["path"], "/nowhere");
    let answer = get("/users/top").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(line(&service, &rest_id(answer.headers())).await["fields"].get("org_id").is_none());

    // gRPC: an answer, an error, and a stream, whose line comes at its end.
    let mut ingest = proto::ingest_service_client::IngestServiceClient::new(channel(&service, &token).await);
    let answer = ingest
        .ingest_batch(IngestBatchRequest { events: vec![click("a", now_millis())], ..IngestBatchRequest::default() })
        .await;
    let found = line(&service, &grpc_id(answer.unwrap().metadata())).await;
    assert_eq!(found["fields"]["path"], "tallyhouse.v1.IngestService/IngestBatch");
    assert_eq!((&found["fields"]["grpc_status"], &found["fields"]["org_id"]), (&"OK".into(), &"acme".into()));
    let mut query = proto::query_service_client::QueryServiceClient::new(channel(&service, &token).await);
    let mut request = Request::new(proto::GetEventRequest { event_id: "none".to_owned() });
    request.metadata_mut().insert("x-request-id", "mine-2".parse().unwrap());
    let error = query.get_event(request).await.unwrap_err();
    assert_eq!((error.code(), &*grpc_id(error.metadata())), (Code::NotFound, "mine-2"));
    assert_eq!(line(&service, "mine-2").await["fields"]["grpc_status"], "NOT_FOUND");

    // grpc-web says its status in its body.
    let web = |event_id: &str| {
        let message = prost::Message::encode_to_vec(&proto::GetEventRequest { event_id: event_id.to_owned() });
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        let url = format!("{}/tallyhouse.v1.QueryService/GetEvent", service.url);
        let post = service.http.post(url).bearer_auth(&token).header("content-type", "application/grpc-web+proto");
        post.body([&[0], &length[..], &message].concat()).send()
    };
    eventually("the event", || async { service.sql("SELECT count() FROM events").await != "0" }).await;
    for (event_id, status) in [("a", "OK"), ("none", "NOT_FOUND")] {
        let answer = web(event_id).await.unwrap();
        let id = rest_id(answer.headers());
        answer.bytes().await.unwrap();
        assert_eq!(line(&service, &id).await["fields"]["grpc_status"], status);
    }

    let (send, requests) = tokio::sync::mpsc::channel(4);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let answer = ingest.ingest(requests).await.unwrap();
    let id = grpc_id(answer.metadata());
    let mut answers = answer.into_inner();
    let batch = |sequence| IngestRequest { sequence, events: vec![click("b", now_millis())], durability: 0 };
    for sequence in 1..=2 {
        send.send(batch(sequence)).await.unwrap();
        assert!(answers.next().await.unwrap().is_ok());
    }
    assert!(lines(&service).iter().all(|line| line["span"]["request_id"] != *id), "the stream is under way");
    drop(send);
    assert!(answers.next().await.is_none());
    assert_eq!(line(&service, &id).await["fields"]["grpc_status"], "OK");
    // What the service says of a batch says of which call it was.
    let stderr = service.stderr();
    assert!(!stderr.contains("hunter2") && !stderr.contains("some-id"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn good_calls_may_be_left_out_and_failed_ones_are_not() {
    let mut service =
        TestService::with(&[("TALLYHOUSE_LOG_FORMAT", "json"), ("TALLYHOUSE_REQUEST_LOG", "errors")]).await;
    let ask = async |service: &TestService, path: &str, id: &str| {
        service
            .http
            .get(format!("{}{path}", service.url))
            .header("x-request-id", id)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(ask(&service, "/users/top", "good").await, 200);
    assert_eq!(ask(&service, "/users/top?limit=x", "bad").await, 422);
    assert_eq!(line(&service, "bad").await["fields"]["status"], 422);
    assert_eq!(lines(&service).len(), 1);
    service.set("TALLYHOUSE_REQUEST_LOG", "none");
    tokio::task::block_in_place(|| service.stop());
    service.start().await;
    assert_eq!(ask(&service, "/users/top?limit=x", "worse").await, 422);
    tokio::task::block_in_place(|| service.stop());
    assert_eq!(lines(&service).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_may_call_from_where_they_are_allowed() {
    let service = TestService::with(&[("TALLYHOUSE_CORS_ORIGINS", "https://a.example,http://localhost:3000")]).await;
    let preflight = |origin: &'static str| {
        let request = service.http.request(reqwest::Method::OPTIONS, format!("{}/events", service.url));
        let request = request.header("origin", origin).header("access-control-request-method", "PUT");
        request.header("access-control-request-headers", "idempotency-key,traceparent").send()
    };
    let allowed = |headers: &HeaderMap, name: &str| {
        let values = headers.get(name).map(|value| value.to_str().unwrap().to_ascii_lowercase()).unwrap_or_default();
        values.split(',').map(|value| value.trim().to_owned()).collect::<BTreeSet<_>>()
    };
    let answer = preflight("http://localhost:3000").await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "http://localhost:3000");
    assert!(
        allowed(answer.headers(), "access-control-allow-methods")
            .is_superset(&["put", "delete"].map(str::to_owned).into())
    );
    let sent = [
        "authorization",
        "baggage",
        "b3",
        "content-encoding",
        "idempotency-key",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "x-b3-traceid",
        "x-grpc-web",
        "x-request-id",
    ];
    assert!(allowed(answer.headers(), "access-control-allow-headers").is_superset(&sent.map(str::to_owned).into()));
    assert!(answer.headers().contains_key("x-request-id"), "also this answer has one");
    let answer = preflight("https://b.example").await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let get = service.http.get(format!("{}/users/top", service.url)).header("origin", "https://a.example");
    let answer = get.send().await.unwrap();
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://a.example");
    let seen =
        ["x-request-id", "date", "idempotency-replayed", "ratelimit", "ratelimit-policy", "retry-after", "grpc-status"];
    assert!(allowed(answer.headers(), "access-control-expose-headers").is_superset(&seen.map(str::to_owned).into()));
}

/// The metrics that are served, with their kinds, and the text.
async fn served(service: &TestService) -> (BTreeMap<String, String>, String) {
    let text = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    (types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_served_as_it_is_documented() {
    let service = TestService::with(&[("TALLYHOUSE_RATE_LIMIT_ORG_EVENTS_PER_SECOND", "1000000")]).await;
    service.store(clicks("m", 20, now_millis())).await;
    for _ in 0..2 {
        assert_eq!(service.get("/users/top").await.0, 200);
    }
    assert_eq!(service.get("/events/no-such-id-of-anybody").await.0, 404);
    assert_eq!(service.get("/nowhere-at-all").await.0, 404);
    let odd = reqwest::Method::from_bytes(b"BREW").unwrap();
    service.http.request(odd, format!("{}/users/top", service.url)).send().await.unwrap();
    let mut audit = proto::audit_service_client::AuditServiceClient::new(service.channel().await);
    let hour = window(now_millis() - 3_600_000, now_millis());
    audit
        .audit(proto::AuditRequest { window: hour, repair: false, unproven_removals_max: 0 })
        .await
        .unwrap()
        .into_inner()
        .next()
        .await;

    let documented: BTreeMap<String, String> = CATALOGUE
        .iter()
        .map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            (metric.prometheus_name(), kind.to_owned())
        })
        .collect();
    let (types, text) = served(&service).await;
    assert_eq!(types, documented);

    let value = |name: &str, labels: &[&str]| {
        let is_it =
            |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label));
        let line = text.lines().find(is_it).unwrap_or_else(|| panic!("no {name} {labels:?} in {text}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    let http = "http_server_request_duration_seconds_count";
    assert!(value(http, &["http_route=\"/users/top\"", "http_response_status_code=\"200\""]) >= 2.0);
    assert!(value(http, &["http_route=\"/events/{event_id}\"", "http_response_status_code=\"404\""]) >= 1.0);
    assert!(value(http, &["http_request_method=\"_OTHER\"", "http_response_status_code=\"405\""]) >= 1.0);
    let rpc = "rpc_server_call_duration_seconds_count";
    let batch = "rpc_method=\"tallyhouse.v1.IngestService/IngestBatch\"";
    assert!(value(rpc, &[batch, "rpc_response_status_code=\"OK\""]) >= 1.0);
    assert!(value("db_client_operation_duration_seconds_count", &["db_operation_name=\"INSERT\""]) >= 1.0);
    assert!(value("tallyhouse_ingest_events_total", &["verdict=\"accepted\""]) >= 20.0);
    assert!(value("tallyhouse_cache_answers_total", &["result=\"hit\""]) >= 1.0);
    let build = [&*format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), "profile="];
    assert!((value("tallyhouse_build_info", &build) - 1.0).abs() < f64::EPSILON);
    let number = |name: &str| {
        let line = text.lines().find_map(|line| {
            line.strip_prefix(&format!("{name} ")).or_else(|| line.strip_prefix(&format!("{name}{{}} ")))
        });
        line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<f64>().unwrap()
    };
    assert!(number("process_resident_memory_bytes") > 1e6 && number("process_cpu_seconds_total") > 0.0);
    assert!(number("process_open_fds") > 3.0 && number("process_max_fds") >= number("process_open_fds"));
    let started = number("process_start_time_seconds") * 1_000.0;
    assert!((0.0..600_000.0).contains(&(now_millis() as f64 - started)), "{started}");
    for chosen_by_callers in ["no-such-id", "nowhere-at-all", "BREW", "default", "user_1"] {
        assert!(!text.contains(chosen_by_callers), "{chosen_by_callers} in {text}");
    }
}

/// Prometheus's own linter (of Debian's package `prometheus`, or a release).
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs promtool on the PATH: scripts/lint-metrics brings it"]
async fn promtool_finds_no_fault_with_the_metrics() {
    let service = TestService::new().await;
    service.store(clicks("m", 20, now_millis())).await;
    assert_eq!(service.get("/users/top").await.0, 200);
    let file = service.data_dir().join("metrics.txt");
    std::fs::write(&file, served(&service).await.1).unwrap();
    let mut command = std::process::Command::new("promtool");
    let output = command.args(["check", "metrics"]).stdin(std::fs::File::open(file).unwrap()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
