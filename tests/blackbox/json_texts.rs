//! JSON that callers send is data: no key, number, nesting or byte-order mark
//! of it is altered or hidden, whichever way it came.

use std::process::{Command, Output};

use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::event_type_service_client::EventTypeServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::analytics::rfc3339;
use crate::events::{click, now_millis, timestamp};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer};

/// Objects with keys that a JSON library of this service gives a meaning to
/// when it is left to itself. Canonical, so that they are stored as they are.
const PRIVATE: [&str; 4] = [
    r#"{"$serde_json::private::Number":"1"}"#,
    r#"{"$serde_json::private::RawValue":"{\"hidden\":1}"}"#,
    r#"{"a":[{"$serde_json::private::Number":"1"},{"b":{"$serde_json::private::RawValue":"[2]"}}]}"#,
    r#"{"$serde_json::private::Number":"not a number","z":{"$serde_json::private::RawValue":"not JSON"}}"#,
];

/// Posts text as it is: status and text.
async fn post(service: &TestService, path: &str, body: String) -> (u16, String) {
    let request =
        service.http.post(format!("{}{path}", service.url)).header("content-type", "application/json").body(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// An ad event as text, with this metadata.
fn ad(id: &str, metadata: &str) -> String {
    let time = rfc3339(now_millis());
    format!(
        r#"{{"event_id":"{id}","type":"click","campaign_id":"c","source":"s","occurred_at":"{time}","metadata":{metadata}}}"#
    )
}

/// An analytics call of one event as text, with these properties.
fn call(id: &str, properties: &str) -> String {
    let time = rfc3339(now_millis());
    format!(r#"{{"events":[{{"event_id":"{id}","event_type":"x","timestamp":"{time}","properties":{properties}}}]}}"#)
}

/// Sends lines with the command.
fn send(service: &TestService, name: &str, lines: &[u8]) -> (Output, Value) {
    let file = service.data_dir().join(name);
    std::fs::write(&file, lines).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.args(["send", "--stored", "--json", "--quiet", "--address", &service.url]).arg(file);
    let output = command.output().unwrap();
    let summary = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output, summary)
}

async fn batch(service: &TestService, events: Vec<proto::Event>) -> proto::IngestBatchResponse {
    let durability = proto::Durability::Stored.into();
    let request = proto::IngestBatchRequest { events, durability, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap().into_inner()
}

fn with_properties(id: &str, properties: &str) -> proto::Event {
    proto::Event { properties: properties.to_owned(), ..click(id, now_millis()) }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_has_a_meaning_on_any_way_in_or_out() {
    let service = TestService::new().await;
    for (n, object) in PRIVATE.into_iter().enumerate() {
        assert_eq!(post(&service, "/events", ad(&format!("ad-{n}"), object)).await.0, 202, "{object}");
        assert_eq!(post(&service, "/api/v1/events", call(&format!("v1-{n}"), object)).await.0, 202, "{object}");
        assert_eq!(batch(&service, vec![with_properties(&format!("grpc-{n}"), object)]).await.results, []);
        let (output, _) = send(&service, "lines.ndjson", ad(&format!("send-{n}"), object).as_bytes());
        assert!(output.status.success(), "{object}");
    }
    // The fields of the event themselves.
    for field in ["$serde_json::private::Number", "$serde_json::private::RawValue"] {
        let (status, text) = post(&service, "/events", format!("{{\"{field}\":\"1\"}}")).await;
        assert!(status == 422 && text.contains("event_id"), "{text}");
        let of_id = format!(r#"{{"events":[{{"event_id":{{"{field}":"1"}}}}]}}"#);
        let (status, text) = post(&service, "/api/v1/events", of_id).await;
        assert!(status == 422 && text.contains("must be a string"), "{text}");
    }
    service.settled().await;
    for (n, object) in PRIVATE.into_iter().enumerate() {
        let of = format!("FROM events WHERE endsWith(event_id, '-{n}')");
        let stored = service.sql(&format!("SELECT DISTINCT properties {of} FORMAT RawBLOB")).await;
        assert_eq!(stored, object);
        assert_eq!(service.sql(&format!("SELECT count() {of}")).await, "4");
        for path in ["/events/ad", "/api/v1/events/v1", "/events/grpc", "/api/v1/events/send"] {
            let shown =
                service.http.get(format!("{}{path}-{n}", service.url)).send().await.unwrap().text().await.unwrap();
            assert!(shown.contains(&format!("\":{object}")), "{shown}");
        }
        let event_id = format!("ad-{n}");
        let shown = service.query().await.get_event(proto::GetEventRequest { event_id }).await.unwrap().into_inner();
        assert_eq!(shown.event.unwrap().event.unwrap().properties, object);
        // The same again is the same.
        let again = batch(&service, vec![with_properties(&format!("grpc-{n}"), &format!(" {object} "))]).await;
        assert_eq!(again.results[0].verdict(), proto::Verdict::Conflict, "it has another time");
    }
    let listed = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["events", "--json", "--address", &service.url])
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    for object in PRIVATE {
        assert_eq!(listed.matches(&format!("\"metadata\":{object}")).count(), 4, "{listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_of_a_schema_has_a_meaning_also_after_a_restart() {
    let mut service = TestService::new().await;
    let schema = r#"{"properties":{"$serde_json::private::Number":{"type":"integer"},"$serde_json::private::RawValue":{"const":{"$serde_json::private::RawValue":"[1]"}}},"required":["$serde_json::private::Number"]}"#;
    let url = format!("{}/api/v1/event-types/x", service.url);
    let body = format!("{{\"schema\":{schema}}}");
    let put = service.http.put(&url).header("content-type", "application/json").body(body).send().await.unwrap();
    assert_eq!(put.status(), 201);
    assert!(put.text().await.unwrap().contains(schema));
    let mut types = EventTypeServiceClient::new(service.channel().await);
    let request =
        proto::RegisterEventTypeRequest { r#type: "y".to_owned(), schema: schema.to_owned(), ..Default::default() };
    let registered = types.register_event_type(request).await.unwrap().into_inner().version.unwrap();
    assert_eq!(registered.schema, schema);

    for round in 0..2 {
        let good = r#"{"$serde_json::private::Number":1,"$serde_json::private::RawValue":{"$serde_json::private::RawValue":"[1]"}}"#;
        let check = async |properties: &str, expected: u16| {
            let id = format!("{round}-{}", properties.len());
            let (status, text) = post(&service, "/api/v1/events", call(&id, properties)).await;
            assert_eq!(status, expected, "{properties}: {text}");
            let event = proto::Event { r#type: "y".to_owned(), ..with_properties(&format!("y-{id}"), properties) };
            assert_eq!(batch(&service, vec![event]).await.results.is_empty(), expected == 202, "{properties}");
        };
        check(good, 202).await;
        check(r#"{"$serde_json::private::Number":"1"}"#, 422).await;
        check("{}", 422).await;
        check(r#"{"$serde_json::private::Number":1,"$serde_json::private::RawValue":"[1]"}"#, 422).await;
        if round == 0 {
            service.stop();
            service.start().await;
        }
    }
}

/// Numbers that ClickHouse's JSON functions read, and such as they do not.
const READABLE: [&str; 12] = [
    "0",
    "-0",
    "18446744073709551615",
    "-9223372036854775808",
    "18446744073709551616.0",
    "-1e30",
    "1E+308",
    "1.7976931348623157e308",
    "5e-324",
    "1e-400",
    "0.1234567890123456789012345678901234567890",
    "123456789012345678901.5",
];
const UNREADABLE: [&str; 6] = [
    "18446744073709551616",
    "-9223372036854775809",
    "1e309",
    "-1e400",
    "123456789012345678901234567890",
    "1.7976931348623159e308",
];

#[tokio::test(flavor = "multi_thread")]
async fn only_numbers_that_queries_can_read_are_accepted() {
    let service = TestService::new().await;
    for number in UNREADABLE {
        // What the database makes of it: nothing of the text can be read.
        let unread = service.sql(&format!("SELECT JSONHas('{{\"a\":{number},\"b\":1}}', 'b')")).await;
        assert_eq!(unread, "0", "{number}");
        let object = format!("{{\"b\":[{{\"c\":{number}}}]}}");
        let (status, text) = post(&service, "/events", ad("e", &object)).await;
        assert_eq!(status, 422, "{text}");
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["error"]["details"][0]["field"], "metadata.b.0.c");
        let message = told["error"]["details"][0]["message"].as_str().unwrap();
        assert!(message.contains("18446744073709551615") && message.contains("as text"), "{message}");
        let (status, text) = post(&service, "/api/v1/events", call("e", &object)).await;
        assert!(status == 422 && text.contains("events[0].properties.b.0.c"), "{text}");
        let results = batch(&service, vec![with_properties("e", &object), click("good", now_millis())]).await.results;
        let refused = results.iter().find(|result| result.index == 0).unwrap();
        assert_eq!((refused.code(), &*refused.errors[0].field), (proto::RejectionCode::Invalid, "properties.b.0.c"));
        let (output, summary) = send(&service, "numbers.ndjson", ad("e", &object).as_bytes());
        assert_eq!((output.status.code(), &summary["rejected"]), (Some(1), &json!(1)));
    }
    for (n, number) in READABLE.into_iter().enumerate() {
        let object = format!("{{\"a\":{number},\"b\":\"there\"}}");
        assert_eq!(post(&service, "/events", ad(&format!("ad-{n}"), &object)).await.0, 202, "{number}");
        let results = batch(&service, vec![with_properties(&format!("grpc-{n}"), &object)]).await.results;
        assert_eq!(results, [], "{number}");
    }
    service.settled().await;
    let of = "FROM events WHERE event_id LIKE 'ad-%' OR event_id LIKE 'grpc-%'";
    let statement = format!(
        "SELECT count(), countIf(JSONExtractString(properties, 'b') = 'there'), countIf(isValidJSON(properties)) {of}"
    );
    assert_eq!(service.sql(&statement).await, "24\t24\t24");
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_and_marked_json_is_read_alike_on_every_way_in() {
    let service = TestService::new().await;
    for (depth, is_taken) in [(127, true), (128, false)] {
        let object = format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let expected = if is_taken { 202 } else { 422 };
        assert_eq!(post(&service, "/events", ad(&format!("ad-{depth}"), &object)).await.0, expected);
        assert_eq!(post(&service, "/api/v1/events", call(&format!("v1-{depth}"), &object)).await.0, expected);
        let results = batch(&service, vec![with_properties(&format!("grpc-{depth}"), &object)]).await.results;
        assert_eq!(results.is_empty(), is_taken, "{results:?}");
        let (_, summary) = send(&service, "deep.ndjson", ad(&format!("send-{depth}"), &object).as_bytes());
        assert_eq!(summary["accepted"], json!(u64::from(is_taken)), "{summary}");
    }
    let mark = "\u{feff}";
    assert_eq!(post(&service, "/events", mark.to_owned() + &ad("ad", "{}")).await.0, 202);
    assert_eq!(post(&service, "/api/v1/events", mark.to_owned() + &call("v1", "{}")).await.0, 202);
    assert_eq!(batch(&service, vec![with_properties("grpc", &format!("{mark}{{\"a\":1}}"))]).await.results, []);
    let lines = format!("{mark}{}\n{mark}{}\n", ad("send-1", "{}"), ad("send-2", "{}"));
    assert_eq!(send(&service, "marked.ndjson", lines.as_bytes()).1["accepted"], json!(2));
    // One parser of times, too.
    let odd = ad("odd", "{}").replacen('T', "x", 1);
    assert_eq!(post(&service, "/events", odd.clone()).await.0, 422);
    assert_eq!(send(&service, "odd.ndjson", odd.as_bytes()).1["rejected"], json!(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_a_mark_are_loaded() {
    let service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let dir = service.data_dir().join("files");
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: String| std::fs::write(dir.join(name), format!("\u{feff}{text}")).unwrap();
    write("organizations.csv", "org_id,name,plan,created_at\nacme,Acme,pro,2026-01-01T00:00:00Z\n".to_owned());
    let object = PRIVATE[2];
    let line = ad("e", object).replacen('{', "{\"org_id\":\"acme\",", 1);
    write("events.ndjson", line + "\n");
    let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["load", "--address", &service.url])
        .arg(&dir)
        .env("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(service.sql("SELECT properties FROM events WHERE org_id = 'acme' FORMAT RawBLOB").await, object);
    let token = Signer::secret(SECRET).token("acme", "read");
    let shown = service.http.get(format!("{}/events/e", service.url)).bearer_auth(token).send().await.unwrap();
    assert!(shown.text().await.unwrap().contains(object));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_before_1970_are_refused_and_none_is_counted_elsewhere() {
    let service = TestService::with(&[("TALLYHOUSE_RETENTION_DAYS", "25000")]).await;
    let old = |id: &str, millis: i64| proto::Event { occurred_at: Some(timestamp(millis)), ..click(id, 0) };
    let results =
        batch(&service, vec![old("a", -1), old("b", -60_000 * 60 * 24 * 300), old("c", 0), old("d", 86_400_000)]);
    let results = results.await.results;
    let refused: Vec<(u32, proto::RejectionCode)> =
        results.iter().map(|result| (result.index, result.code())).collect();
    assert_eq!(refused, [(0, proto::RejectionCode::TooOld), (1, proto::RejectionCode::TooOld)]);
    assert!(results[0].errors[0].message.contains("1970"), "{results:?}");
    let body = ad("e", "{}").replacen(&rfc3339(now_millis())[..4], "1969", 1);
    let (status, text) = post(&service, "/events", body).await;
    assert!(status == 422 && text.contains("occurred_at") && text.contains("1970"), "{text}");
    service.assert_counted(2).await;
    assert_eq!(service.sql("SELECT max(toYear(minute)) FROM campaign_minutes").await, "1970");
    let request = "/stats?campaign_id=camp_1&from=1960-01-01T00:00:00Z&to=1971-01-01T00:00:00Z&granularity=day";
    eventually("both are counted", || async {
        service.get(request).await.1["series"].as_array().is_some_and(|buckets| buckets.len() == 2)
    })
    .await;
    let (_, mut stats) = service.get(request).await;
    let series = stats["series"].take();
    assert_eq!(series[0]["ts"], "1970-01-01T00:00:00Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_schema_are_compared_exactly() {
    let service = TestService::new().await;
    let mut types = EventTypeServiceClient::new(service.channel().await);
    let schema = r#"{"properties":{"a":{"maximum":9007199254740993},"b":{"const":0.30000000000000000001},"c":{"enum":[18446744073709551614]}}}"#;
    let request = |force: bool, schema: &str| proto::RegisterEventTypeRequest {
        r#type: "click".to_owned(),
        schema: schema.to_owned(),
        force,
        ..Default::default()
    };
    types.register_event_type(request(false, schema)).await.unwrap();
    for (n, (properties, is_taken)) in [
        (r#"{"a":9007199254740993}"#, true),
        (r#"{"a":9007199254740994}"#, false),
        (r#"{"a":9007199254740993.5}"#, false),
        (r#"{"b":0.30000000000000000001}"#, true),
        (r#"{"b":0.3}"#, false),
        (r#"{"c":18446744073709551614}"#, true),
        (r#"{"c":18446744073709551615}"#, false),
    ]
    .into_iter()
    .enumerate()
    {
        let results = batch(&service, vec![with_properties(&format!("e-{n}"), properties)]).await.results;
        assert_eq!(results.is_empty(), is_taken, "{properties}: {results:?}");
    }
    // A version that refuses one number more is no compatible one.
    let narrower = schema.replace("9007199254740993", "9007199254740992");
    let refused = types.register_event_type(request(false, &narrower)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "INCOMPATIBLE_SCHEMA");
}
