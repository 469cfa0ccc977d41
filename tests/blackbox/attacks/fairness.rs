//! One tenant against the others: queries, seats, schemas and keys that one
//! organization takes for itself. Each attack is measured by what another
//! organization gets meanwhile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::outcome_service_client::OutcomeServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;

use crate::analytics::event;
use crate::events::{click, now_millis, window};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer, channel};

/// Longest that a tenant may wait for what others do not need, on any machine.
const CEILING: Duration = Duration::from_secs(20);

/// A service with tokens, and these settings.
async fn service(settings: &[(&str, &str)]) -> TestService {
    TestService::with(&[&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)], settings].concat()).await
}

fn token(org_id: &str) -> String {
    Signer::secret(SECRET).token(org_id, "ingest read admin")
}

/// A request as an organization: status and JSON body.
async fn call(
    service: &TestService,
    org_id: &str,
    method: reqwest::Method,
    path: &str,
    body: Option<&Value>,
) -> (u16, Value) {
    let request = service.http.request(method, format!("{}{path}", service.url)).bearer_auth(token(org_id));
    let request = body.into_iter().fold(request, |request, body| request.json(body));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn get(service: &TestService, org_id: &str, path: &str) -> (u16, Value) {
    call(service, org_id, reqwest::Method::GET, path, None).await
}

async fn post(service: &TestService, org_id: &str, path: &str, body: &Value) -> (u16, Value) {
    call(service, org_id, reqwest::Method::POST, path, Some(body)).await
}

async fn put(service: &TestService, org_id: &str, path: &str, body: &Value) -> (u16, Value) {
    call(service, org_id, reqwest::Method::PUT, path, Some(body)).await
}

/// Reads that run in ClickHouse now, for the service.
async fn running_reads(service: &TestService) -> u64 {
    let statement = "SELECT count() FROM system.processes WHERE query_id LIKE 'tallyhouse-%'";
    service.sql(statement).await.parse().unwrap()
}

/// Makes every read of events slow: ClickHouse sleeps for each block, up to
/// the service's own time limit. (The view's filter is the only way to slow
/// down a small table.)
async fn make_reads_slow(service: &TestService) {
    service.sql("RENAME TABLE events TO events_of_test").await;
    let view = "CREATE VIEW events DEFINER = CURRENT_USER SQL SECURITY DEFINER AS \
                SELECT * FROM events_of_test WHERE sleepEachRow(0.5) = 0 \
                SETTINGS function_sleep_max_microseconds_per_block = 60000000";
    service.sql(view).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_end_with_their_callers() {
    let limits = [("TALLYHOUSE_QUERIES_IN_FLIGHT_MAX", "8"), ("TALLYHOUSE_QUERY_WAIT_MS_MAX", "60000")];
    let service = service(&limits).await;
    for org_id in ["acme", "beta"] {
        let events = json!({ "events": (0..40).map(|n| event(&format!("{org_id}-{n}"))).collect::<Vec<_>>() });
        assert_eq!(post(&service, org_id, "/api/v1/events", &events).await.0, 202);
    }
    service.sql("SYSTEM FLUSH LOGS").await;
    eventually("80 events", || async { service.sql("SELECT count() FROM events").await == "80" }).await;
    make_reads_slow(&service).await;

    // Acme asks 200 times what takes 20 seconds, and never waits for an answer.
    let flood: Vec<_> = (0..200)
        .map(|n| {
            let request = service.http.get(format!("{}/api/v1/events?limit={}", service.url, 1 + n % 50));
            tokio::spawn(request.bearer_auth(token("acme")).send())
        })
        .collect();
    eventually("acme has its share", || async { running_reads(&service).await >= 4 }).await;
    for _ in 0..20 {
        assert!(running_reads(&service).await <= 5, "one organization runs more than half of 8, and one that ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // Meanwhile beta is answered what does not need the slow table, and its events are taken and stored.
    let begin = Instant::now();
    assert_eq!(get(&service, "beta", "/api/v1/event-types").await.0, 200);
    let (status, _) = get(&service, "beta", "/api/v1/metrics/dau?start_date=2026-02-10&end_date=2026-02-12").await;
    assert_eq!(status, 200);
    assert_eq!(post(&service, "beta", "/api/v1/events", &json!({ "events": [event("while")] })).await.0, 202);
    assert!(begin.elapsed() < CEILING, "{:?}", begin.elapsed());

    // The callers go: so do their queries, long before their time limit.
    let begin = Instant::now();
    flood.iter().for_each(tokio::task::JoinHandle::abort);
    drop(join_all(flood).await);
    eventually("nothing runs", || async { running_reads(&service).await == 0 }).await;
    assert!(begin.elapsed() < Duration::from_secs(15), "they ran to their end, 20 s: {:?}", begin.elapsed());
    // And the places are free again.
    assert_eq!(get(&service, "acme", "/api/v1/event-types").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_names_its_time_limit_and_can_be_cancelled() {
    let service = TestService::new().await;
    let recorder = Recorder::start(&service.clickhouse_url).await;
    // Late events are looked up: the index of the second service is small.
    let settings = [
        ("TALLYHOUSE_CLICKHOUSE_URL", &*recorder.url),
        ("TALLYHOUSE_INDEX_IDS_MAX", "1000"),
        ("TALLYHOUSE_BATCH_EVENTS_MAX", "250"),
    ];
    let second = service.second(&settings).await;
    let channel = tonic::transport::Channel::from_shared(second.url.clone()).unwrap().connect().await.unwrap();
    for path in [
        "/api/v1/events",
        "/api/v1/events/a",
        "/api/v1/event-types",
        "/api/v1/event-types/none",
        "/api/v1/organizations/default",
        "/api/v1/organizations/default/members",
        "/api/v1/organizations/top",
        "/api/v1/users/ann",
        "/api/v1/metrics/summary?start_date=2026-02-10&end_date=2026-02-12&metrics=events,active_users",
        "/api/v1/users/top",
        "/api/v1/campaigns/top",
    ] {
        service.http.get(format!("{}{path}", second.url)).send().await.unwrap();
    }
    // More than the index holds, so that its floor rises, and then one from before.
    for minute in 0..8 {
        let events = crate::events::clicks(&format!("minute-{minute}"), 250, now_millis() - (8 - minute) * 60_000);
        let request = proto::IngestBatchRequest { events, durability: 2, ..Default::default() };
        eventually("room in the index", || async { second.ingest().await.ingest_batch(request.clone()).await.is_ok() })
            .await;
    }
    let late = crate::events::clicks("late", 10, now_millis() - 86_400_000);
    let request = proto::IngestBatchRequest { events: late, ..Default::default() };
    second.ingest().await.ingest_batch(request).await.unwrap();
    let mut audits = proto::audit_service_client::AuditServiceClient::new(channel);
    let mut hours = audits.audit(proto::AuditRequest::default()).await.unwrap().into_inner();
    while hours.message().await.unwrap().is_some() {}

    // Migrations come before everything else, and what runs is asked for without a place.
    let own = [
        "schema_migrations",
        "system.",
        "audit_repairs",
        "audit_due",
        "deleted_periods",
        "SELECT version()",
        "KILL QUERY",
    ];
    let requests = recorder.requests();
    let reads = requests.iter().filter(|(_, body)| body.contains("SELECT ") && !body.contains("INSERT INTO"));
    let reads: Vec<_> =
        reads.filter(|(_, body)| !own.iter().any(|own| body.contains(own)) && !body.ends_with("SELECT 1")).collect();
    for (query, body) in &reads {
        for setting in ["query_id=tallyhouse-", "max_execution_time=", "cancel_http_readonly_queries_on_client_close=1"]
        {
            assert!(query.contains(setting), "{setting} of {query}: {body}");
        }
    }
    for table in ["FROM events", "event_types", "organizations", "memberships", "type_hours", "user_days"] {
        assert!(reads.iter().any(|(_, body)| body.contains(table)), "{table} was read");
    }
}

/// A way to ClickHouse that writes down what is asked.
struct Recorder {
    url: String,
    /// What was sent on each connection.
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    async fn start(clickhouse_url: &str) -> Self {
        let clickhouse = clickhouse_url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let connections: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let recorded = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(&clickhouse).await.unwrap();
                let number = {
                    let mut connections = recorded.lock().unwrap();
                    connections.push(Vec::new());
                    connections.len() - 1
                };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let recorded = Arc::clone(&recorded);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
                        recorded.lock().unwrap()[number].extend_from_slice(&buffer[..bytes]);
                        if to_server.write_all(&buffer[..bytes]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, connections }
    }

    /// The query part of each request's address, and all that follows it.
    fn requests(&self) -> Vec<(String, String)> {
        let connections = self.connections.lock().unwrap();
        let texts = connections.iter().map(|sent| String::from_utf8_lossy(sent).into_owned());
        let requests = texts.flat_map(|text| {
            let requests = text.split("POST /?").skip(1).map(str::to_owned);
            requests.collect::<Vec<_>>()
        });
        requests
            .filter_map(|request| {
                request.split_once(" HTTP/1.1").map(|(query, rest)| (query.to_owned(), rest.to_owned()))
            })
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_organization_cannot_take_all_seats_of_watchers() {
    let service = service(&[("TALLYHOUSE_WATCHERS_MAX", "8")]).await;
    let watch = async |org_id: &str| {
        let mut client = OutcomeServiceClient::new(channel(&service, &token(org_id)).await);
        client.watch(proto::WatchRequest::default()).await.map(tonic::Response::into_inner)
    };
    let mut seats = Vec::new();
    for _ in 0..20 {
        match watch("acme").await {
            Ok(seat) => seats.push(seat),
            Err(status) => assert_eq!(status.code(), Code::ResourceExhausted),
        }
    }
    assert_eq!(seats.len(), 4);
    let mut others = Vec::new();
    for org_id in ["beta", "gamma", "delta"] {
        others.push(watch(org_id).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_keeps_no_other_organization_waiting() {
    let service = service(&[]).await;
    let audit = async |org_id: &str, hours: i64| {
        let mut client = proto::audit_service_client::AuditServiceClient::new(channel(&service, &token(org_id)).await);
        let window = window(now_millis() - hours * 3_600_000, now_millis());
        client.audit(proto::AuditRequest { window, ..Default::default() }).await.map(tonic::Response::into_inner)
    };
    // A year, hour by hour.
    let mut long = audit("acme", 8_000).await.unwrap();
    assert!(long.message().await.unwrap().is_some());
    assert_eq!(audit("acme", 1).await.unwrap_err().code(), Code::ResourceExhausted);
    let mut short = audit("beta", 3).await.unwrap();
    let mut messages = 0;
    while short.message().await.unwrap().is_some() {
        messages += 1;
    }
    assert!(messages >= 3, "{messages}");
    // Acme's goes on.
    assert!(long.message().await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_named_in_a_body_must_be_the_callers() {
    let service = service(&[]).await;
    let value = |org_id: &str| json!({"org_id": org_id, "date": "2026-02-10", "name": "revenue", "value": 1});
    let refused = [
        post(&service, "acme", "/api/v1/metrics", &json!({ "metrics": [value("acme"), value("beta")] })).await,
        post(&service, "acme", "/api/v1/metrics", &json!({ "org_id": "beta", "metrics": [value("acme")] })).await,
        put(&service, "acme", "/api/v1/event-types/a", &json!({ "org_id": "beta" })).await,
    ];
    let beacon = json!({ "events": [{ "org_id": "beta", "event_id": "a", "event_type": "a" }] });
    let refused = refused.into_iter().chain([post(&service, "acme", "/beacon", &beacon).await]);
    for (status, body) in refused {
        assert_eq!((status, &body["error"]["code"]), (403, &json!("PERMISSION_DENIED")), "{body}");
    }
    assert_eq!(post(&service, "acme", "/api/v1/metrics", &json!({ "metrics": [value("acme")] })).await.0, 200);
    assert_eq!(service.sql("SELECT count() FROM custom_metrics").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_writes_is_for_its_own_user() {
    use std::os::unix::fs::PermissionsExt as _;

    let mut service = service(&[]).await;
    // As a former release may have left them.
    service.stop();
    for path in ["", "log"] {
        let path = service.data_dir().join(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::set_permissions(service.data_dir().join("idempotency.redb"), std::fs::Permissions::from_mode(0o644))
        .unwrap();
    service.start().await;
    assert_eq!(post(&service, "acme", "/api/v1/events", &json!({ "events": [event("a")] })).await.0, 202);
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let data_dir = service.data_dir();
    for dir in [data_dir.to_owned(), data_dir.join("log"), data_dir.join("clickhouse")] {
        assert_eq!(mode(&dir), 0o700, "{}", dir.display());
    }
    let mut files = vec![data_dir.join("idempotency.redb"), data_dir.join("cursor-key")];
    files.extend(std::fs::read_dir(data_dir.join("log")).unwrap().map(|entry| entry.unwrap().path()));
    assert!(files.len() > 3, "the lock and a segment");
    for file in files {
        // A segment may have been stored since it was listed.
        let Ok(metadata) = file.metadata() else { continue };
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, expected, "{}", file.display());
    }
}

#[test]
fn who_holds_the_log_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("log")).unwrap();
    let lock = std::fs::File::create(dir.path().join("log/lock")).unwrap();
    lock.lock().unwrap();
    let started = std::process::Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["serve", "--listen", "127.0.0.1:0", "--clickhouse-url", "http://127.0.0.1:1", "--data-dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(!started.status.success());
    let said = String::from_utf8_lossy(&started.stderr).into_owned();
    let holder = format!("held by process {}", std::process::id());
    assert!(said.contains(&holder) && said.contains("lock file"), "{said}");
}

/// A batch of clicks as an organization, over gRPC.
async fn ingest(
    service: &TestService,
    org_id: &str,
    events: Vec<proto::Event>,
) -> Result<proto::IngestBatchResponse, tonic::Status> {
    let mut client = proto::ingest_service_client::IngestServiceClient::new(channel(service, &token(org_id)).await);
    let request = proto::IngestBatchRequest { events, ..Default::default() };
    client.ingest_batch(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_too_costly_to_check_is_refused() {
    let service = service(&[]).await;
    let constants = |count: usize| (0..count).map(|n| json!({ "const": n })).collect::<Vec<_>>();
    let schema = |count: usize| json!({ "schema": {"properties": {"items": {"type": "array", "items": {"anyOf": constants(count)}}}}});
    let (status, body) = put(&service, "acme", "/api/v1/event-types/dear", &schema(2_400)).await;
    assert_eq!(
        (status, &body["error"]["details"][0]["field"]),
        (422, &json!("schema.properties.items.items")),
        "{body}"
    );
    let message = body["error"]["details"][0]["message"].to_string();
    assert!(message.contains("steps") && message.contains("maxItems"), "{message}");

    // As dear as is allowed, and as many and as large events as fit, all of them wrong at the last item.
    assert_eq!(put(&service, "acme", "/api/v1/event-types/dear", &schema(230)).await.0, 201);
    assert_eq!(put(&service, "beta", "/api/v1/event-types/dear", &json!({"schema": {"required": ["a"]}})).await.0, 201);
    let resident = memory(&service);
    let properties = format!("{{\"items\":[{}\"x\"]}}", "229,".repeat(3_900));
    let attack = (0..200).map(|n| proto::Event {
        r#type: "dear".to_owned(),
        properties: properties.clone(),
        ..click(&format!("dear-{n}"), now_millis())
    });
    let attack: Vec<proto::Event> = attack.collect();
    let begin = Instant::now();
    let attacks = join_all((0..4).map(|_| ingest(&service, "acme", attack.clone())));
    let others = async {
        for n in 0..20 {
            let one = Instant::now();
            let (mut wrong, mut right) = (event(&format!("wrong-{n}")), event(&format!("right-{n}")));
            wrong["event_type"] = json!("dear");
            wrong["properties"] = json!({});
            right["event_type"] = json!("dear");
            let (status, body) = post(&service, "beta", "/api/v1/events", &json!({ "events": [wrong, right] })).await;
            assert_eq!((status, &body["accepted"]), (202, &json!(1)), "{body}");
            assert_eq!(get(&service, "beta", "/api/v1/event-types").await.0, 200);
            assert!(one.elapsed() < CEILING, "{:?}", one.elapsed());
        }
    };
    let (attacks, ()) = tokio::join!(attacks, others);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    for answer in attacks {
        let counts = answer.unwrap().counts.unwrap();
        assert_eq!(counts.accepted + counts.duplicate + counts.conflict, 0);
        assert_eq!(counts.rejected + counts.undecided, 200, "{counts:?}");
    }
    let grown = memory(&service).saturating_sub(resident);
    assert!(grown < 600 << 20, "{grown} bytes");
}

/// The memory of the service, in bytes.
fn memory(service: &TestService) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_of_schemas_that_takes_too_long_is_not_decided() {
    let service = service(&[("TALLYHOUSE_SCHEMA_WAIT_MS_MAX", "500")]).await;
    let branches = |from: usize| {
        let constant = |n: usize| json!({"properties": {"x": {"const": n}, "y": {"enum": [n, n + 1]}}});
        json!({"properties": {"a": {"anyOf": (from..from + 600).map(constant).collect::<Vec<_>>()}}})
    };
    let path = "/api/v1/event-types/compared";
    assert_eq!(put(&service, "acme", path, &json!({ "schema": branches(0) })).await.0, 201);
    let begin = Instant::now();
    let (status, body) = put(&service, "acme", path, &json!({ "schema": branches(1) })).await;
    assert!(begin.elapsed() < CEILING, "{:?}", begin.elapsed());
    assert_eq!((status, &body["error"]["code"]), (422, &json!("INCOMPATIBLE_SCHEMA")), "{body}");
    assert!(body["error"]["details"][0]["message"].to_string().contains("force"), "{body}");
    assert_eq!(put(&service, "acme", path, &json!({ "schema": branches(1), "force": true })).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_of_many_types_take_bounded_memory() {
    let mut service = service(&[]).await;
    let before = memory(&service);
    for n in 0..120 {
        let patterns = (0..30).map(|p| (format!("p{p}"), json!({"pattern": format!("^({n}|[a-z{p}]+x){{1,12}}$")})));
        let schema = json!({ "properties": patterns.collect::<serde_json::Map<_, _>>() });
        let (status, body) =
            put(&service, "acme", &format!("/api/v1/event-types/t{n}"), &json!({ "schema": schema })).await;
        assert_eq!(status, 201, "{body}");
    }
    let use_all = async |service: &TestService, round: u32| {
        for n in 0..120 {
            let value = if n % 2 == 0 { "ax" } else { "NO" };
            let mut event = event(&format!("{round}-{n}"));
            event["event_type"] = json!(format!("t{n}"));
            event["properties"] = json!({ "p1": value });
            let (status, body) = post(service, "acme", "/api/v1/events", &json!({ "events": [event] })).await;
            assert_eq!(status, if n % 2 == 0 { 202 } else { 422 }, "{body}");
        }
    };
    use_all(&service, 0).await;
    let grown = memory(&service).saturating_sub(before);
    assert!(grown < 400 << 20, "{grown} bytes");
    service.kill();
    service.start().await;
    let before = memory(&service);
    use_all(&service, 1).await;
    let grown = memory(&service).saturating_sub(before);
    assert!(grown < 400 << 20, "{grown} bytes after a restart");
}
