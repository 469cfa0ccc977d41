//! Event types: versions are registered, events are checked against them, and
//! what was stored stays.

use serde_json::{Value, json};
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::event_type_service_client::EventTypeServiceClient;
use tallyhouse::transport::proto::query_service_client::QueryServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::analytics::{event, rfc3339};
use crate::events::{click, now_millis};
use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer, channel};

/// Registers a version over REST.
async fn put(service: &TestService, event_type: &str, body: Value) -> (u16, Value) {
    let url = format!("{}/api/v1/event-types/{event_type}", service.url);
    let answer = service.http.put(url).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn purchase() -> Value {
    json!({
        "type": "object", "required": ["amount"], "additionalProperties": false,
        "properties": {"amount": {"type": "integer", "minimum": 0}, "items": {"items": {"required": ["sku"]}}},
    })
}

/// An event over REST, of the first contract that takes any type.
fn bought(id: &str, properties: Value) -> Value {
    let mut event = event(id);
    event["event_type"] = json!("purchase");
    event["properties"] = properties;
    event
}

/// The same event over gRPC.
fn bought_by_grpc(id: &str, properties: &Value) -> proto::Event {
    proto::Event { r#type: "purchase".to_owned(), properties: properties.to_string(), ..click(id, now_millis()) }
}

/// Fields at fault.
fn places(body: &Value) -> Vec<&str> {
    body["error"]["details"].as_array().unwrap().iter().map(|detail| detail["field"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_accepts_what_was_accepted() {
    let service = TestService::new().await;
    let (status, first) = put(&service, "purchase", json!({ "schema": purchase() })).await;
    assert_eq!((status, &first["version"], &first["schema"]), (201, &json!(1), &purchase()));
    assert_eq!(put(&service, "purchase", json!({ "version": 1, "schema": purchase() })).await, (200, first.clone()));
    assert_eq!(put(&service, "purchase", json!({ "schema": purchase() })).await, (200, first.clone()));
    let (status, body) = put(&service, "purchase", json!({ "version": 1, "schema": {} })).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("CONFLICT")));
    let (status, body) = put(&service, "purchase", json!({ "version": 3, "schema": {} })).await;
    assert_eq!((status, places(&body)), (422, vec!["version"]));

    let mut narrower = purchase();
    narrower["required"] = json!(["amount", "currency"]);
    narrower["properties"]["amount"]["maximum"] = json!(10);
    narrower["properties"]["currency"] = json!({"type": "string"});
    let (status, body) = put(&service, "purchase", json!({ "schema": narrower })).await;
    assert_eq!((status, &body["error"]["code"]), (422, &json!("INCOMPATIBLE_SCHEMA")));
    assert_eq!(places(&body), ["properties.currency", "properties.amount"]);
    let (status, body) = put(&service, "purchase", json!({ "schema": narrower, "force": true, "version": 2 })).await;
    assert_eq!((status, &body["version"]), (201, &json!(2)));
    let (status, body) = put(&service, "purchase", json!({})).await;
    assert_eq!((status, &body["version"], &body["schema"]), (201, &json!(3), &json!(null)));
    assert_eq!(put(&service, "a.b", json!({})).await.0, 201);

    let (_, listed) = service.get("/api/v1/event-types").await;
    let listed: Vec<(&Value, &Value, &Value)> = listed["event_types"]
        .as_array()
        .unwrap()
        .iter()
        .map(|summary| (&summary["type"], &summary["version"], &summary["has_schema"]))
        .collect();
    let no = json!(false);
    assert_eq!(listed, [(&json!("a.b"), &json!(1), &no), (&json!("purchase"), &json!(3), &no)]);
    let (status, shown) = service.get("/api/v1/event-types/purchase").await;
    assert_eq!((status, &shown["version"], shown["versions"].as_array().unwrap().len()), (200, &json!(3), 3));
    assert_eq!((&shown["versions"][2], &shown["versions"][1]["schema"]), (&first, &narrower));
    assert_eq!(service.get("/api/v1/event-types/other").await.1["error"]["code"], "NOT_FOUND");

    for (event_type, body, expected) in [
        ("two%20words", json!({}), "type"),
        ("x", json!({"schema": []}), "schema"),
        ("x", json!({"schema": {"$ref": "https://example.com/"}}), "schema.$ref"),
        ("x", json!({"schema": {"properties": {"a": {"type": "text"}}}}), "schema.properties.a.type"),
        ("x", json!({"schema": {"pattern": "(?=a)"}}), "schema.pattern"),
        ("x", json!({"schema": {"title": "x".repeat(70_000)}}), "schema"),
        ("x", json!({"version": "1"}), "version"),
        ("x", json!({"version": 0}), "version"),
        ("x", json!({"force": 1}), "force"),
    ] {
        let (status, answer) = put(&service, event_type, body).await;
        assert_eq!((status, places(&answer)), (422, vec![expected]), "{answer}");
    }
    let answer =
        service.http.put(format!("{}/api/v1/event-types/x", service.url)).header("content-type", "application/json");
    assert_eq!(answer.body("{").send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_checked_on_every_way_in_and_record_the_version() {
    let mut service = TestService::new().await;
    let before = bought("before", json!({"amount": "many"}));
    assert_eq!(service.post("/api/v1/events", &json!({ "events": [before] })).await.0, 202);
    assert_eq!(put(&service, "purchase", json!({ "schema": purchase() })).await.0, 201);
    let clicked = json!({"properties": {"x": {"type": "integer"}}});
    assert_eq!(put(&service, "click", json!({ "schema": clicked })).await.0, 201);

    for round in 0..2 {
        let bad = json!({"amount": -1, "items": [{"sku": 1}, {}], "more": 1});
        let id = |name: &str| format!("{name}-{round}");
        let good = bought(&id("good"), json!({"amount": 5}));
        let (status, body) =
            service.post("/api/v1/events", &json!({ "events": [good, bought(&id("bad"), bad.clone())] })).await;
        assert_eq!((status, &body["accepted"]), (202, &json!(1)));
        let rejected = &body["rejected"][0];
        let named = (&rejected["index"], &rejected["code"], rejected["field"].as_str().unwrap());
        assert_eq!((named.0, named.1), (&json!(1), &json!("SCHEMA")), "{body}");
        assert!(named.2.starts_with("properties."), "{body}");

        // The first contract.
        let mut event = json!({
            "event_id": id("click"), "type": "click", "campaign_id": "c", "source": "web",
            "occurred_at": rfc3339(now_millis()), "metadata": {"x": "left"},
        });
        let (status, body) = service.post("/events", &event).await;
        assert_eq!((status, places(&body)), (422, vec!["metadata.x"]));
        event["metadata"]["x"] = json!(1);
        assert_eq!(service.post("/events", &event).await.0, 202);

        // gRPC: a batch, and a stream.
        let events = vec![bought_by_grpc(&id("unary"), &json!({"amount": 6})), bought_by_grpc(&id("bad"), &bad)];
        let mut ingest = service.ingest().await;
        let request = proto::IngestBatchRequest { events: events.clone(), ..Default::default() };
        let unary = ingest.ingest_batch(request).await.unwrap().into_inner();
        let request = proto::IngestRequest { events, ..Default::default() };
        let mut stream = ingest.ingest(tokio_stream::iter([request])).await.unwrap().into_inner();
        let streamed = stream.message().await.unwrap().unwrap();
        for (counts, results) in [(unary.counts, unary.results), (streamed.counts, streamed.results)] {
            assert_eq!(counts.unwrap().rejected, 1);
            let result = results.iter().find(|result| result.index == 1).unwrap();
            assert_eq!(result.code(), proto::RejectionCode::Schema);
            let mut fields: Vec<&str> = result.errors.iter().map(|error| &*error.field).collect();
            fields.sort_unstable();
            assert_eq!(fields, ["properties.amount", "properties.items.1.sku", "properties.more"]);
        }
        // What was registered outlives the service.
        if round == 0 {
            service.kill();
            service.start().await;
        }
    }

    // A new version: a repeated event is still the one that was stored.
    let strict = json!({"type": "object", "required": ["currency"]});
    assert_eq!(put(&service, "purchase", json!({ "schema": strict, "force": true })).await.0, 201);
    service.settled().await;
    let again = bought_by_grpc("unary-0", &json!({"amount": 6}));
    let stored = QueryServiceClient::new(service.channel().await)
        .get_event(proto::GetEventRequest { event_id: "unary-0".to_owned() })
        .await
        .unwrap()
        .into_inner()
        .event
        .unwrap();
    assert_eq!(stored.schema_version, 1);
    let again = proto::Event { occurred_at: stored.event.unwrap().occurred_at, ..again };
    let other = proto::Event { seq: 9, ..again.clone() };
    let new = proto::Event { event_id: "new".to_owned(), ..again.clone() };
    let answer = service.store(vec![again, other, new]).await;
    let verdicts: Vec<proto::Verdict> = answer.results.iter().map(proto::EventResult::verdict).collect();
    assert_eq!(verdicts, [proto::Verdict::Duplicate, proto::Verdict::Conflict, proto::Verdict::Rejected]);
    service.store(vec![bought_by_grpc("later", &json!({"currency": "EUR"}))]).await;
    let versions = service.sql("SELECT event_id, schema_version FROM events WHERE type = 'purchase' ORDER BY 1").await;
    let expected = ["before\t0", "good-0\t1", "good-1\t1", "later\t2", "unary-0\t1", "unary-1\t1"];
    assert_eq!(versions, expected.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_late_event_is_a_duplicate_whatever_its_type() {
    let service = TestService::with(&[("TALLYHOUSE_INDEX_IDS_MAX", "40000")]).await;
    let hour = now_millis() - 3_600_000;
    let old = proto::Event { r#type: "purchase".to_owned(), ..click("old", hour) };
    service.store(vec![old.clone()]).await;
    // So many newer ones that the old one leaves memory.
    for n in 0..5 {
        service.store(crate::events::clicks(&format!("fill{n}"), 9_000, now_millis())).await;
    }
    assert_eq!(put(&service, "purchase", json!({ "schema": {"required": ["amount"]} })).await.0, 201);
    let never = proto::Event { event_id: "never".to_owned(), ..old.clone() };
    let answer = service.store(vec![old, never]).await;
    let verdicts: Vec<proto::Verdict> = answer.results.iter().map(proto::EventResult::verdict).collect();
    assert_eq!(verdicts, [proto::Verdict::Duplicate, proto::Verdict::Rejected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_unknown_types_is_per_organization() {
    let service =
        TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET), ("TALLYHOUSE_EVENT_TYPES_REFRESH_SECONDS", "1")])
            .await;
    let token = |org_id: &str| Signer::secret(SECRET).token(org_id, "ingest read admin");
    let mut types = EventTypeServiceClient::new(channel(&service, &token("acme")).await);
    let request = proto::RegisterEventTypeRequest { r#type: "click".to_owned(), ..Default::default() };
    assert!(types.register_event_type(request).await.unwrap().into_inner().created);
    let insert = "INSERT INTO organizations (org_id, name, plan, unknown_event_types, version) VALUES";
    service
        .sql(&format!("{insert} ('acme', 'Acme', 'free', 'reject', 2), ('beta', 'Beta', 'free', 'accept', 2)"))
        .await;
    let send = async |org_id: &str, id: &str, event_type: &str| {
        let channel = channel(&service, &token(org_id)).await;
        let mut ingest = proto::ingest_service_client::IngestServiceClient::new(channel);
        let event = proto::Event { r#type: event_type.to_owned(), ..click(id, now_millis()) };
        let request = proto::IngestBatchRequest { events: vec![event], ..Default::default() };
        ingest.ingest_batch(request).await.unwrap().into_inner().results.pop()
    };
    let tries = std::sync::atomic::AtomicU32::new(0);
    eventually("the policy", || async {
        let n = tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        send("acme", &format!("unknown-{n}"), "other").await.is_some()
    })
    .await;
    let result = send("acme", "unknown", "other").await.unwrap();
    assert_eq!((result.code(), &*result.errors[0].field), (proto::RejectionCode::UnknownType, "type"));
    assert_eq!(send("acme", "known", "click").await, None);
    assert_eq!(send("beta", "unknown", "other").await, None);
    // Nobody sees another's types.
    let mut types = EventTypeServiceClient::new(channel(&service, &token("beta")).await);
    let listed = types.list_event_types(proto::ListEventTypesRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.event_types, []);
    let request = proto::GetEventTypeRequest { r#type: "click".to_owned(), version: 0 };
    assert_eq!(types.get_event_type(request).await.unwrap_err().code(), Code::NotFound);
    service.sql(&format!("{insert} ('acme', 'Acme', 'free', 'accept', 3)")).await;
    eventually("the policy is gone", || async { send("acme", "unknown", "other").await.is_none() }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_put_holds_at_once() {
    let service = TestService::with(&[("TALLYHOUSE_EVENT_TYPES_REFRESH_SECONDS", "3600")]).await;
    for (n, (policy, status)) in [("reject", 422), ("accept", 202), ("reject", 422)].into_iter().enumerate() {
        let url = format!("{}/api/v1/organizations/default", service.url);
        let organization = json!({"name": "Acme", "unknown_event_types": policy});
        assert_eq!(service.http.put(url).json(&organization).send().await.unwrap().status(), 200);
        let answer = service.post("/api/v1/events", &json!({ "events": [event(&format!("e-{n}"))] })).await;
        assert_eq!(answer.0, status, "{policy}: {answer:?}");
        if status == 422 {
            assert_eq!(places(&answer.1), ["events[0].event_type"]);
        }
    }
    // What was taken before is a duplicate still.
    service.settled().await;
    let (_, listed) = service.get("/api/v1/events").await;
    assert_eq!((&listed["events"][0]["event_id"], &listed["events"][0]["schema_version"]), (&json!("e-1"), &json!(0)));
    let mut again = listed["events"][0].clone();
    again.as_object_mut().unwrap().retain(|field, _| !["received_at", "schema_version"].contains(&&**field));
    let (status, answer) = service.post("/api/v1/events", &json!({ "events": [again] })).await;
    assert_eq!((status, &answer["duplicates"]), (202, &json!(1)), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_registrations_at_once_one_wins_and_the_others_are_told() {
    let service = TestService::new().await;
    let registrations = (0..12).map(|n| {
        let schema = json!({"properties": {format!("p{n}"): {"type": "string"}}});
        put(&service, "raced", json!({ "version": 1, "schema": schema }))
    });
    let answers = futures_util::future::join_all(registrations).await;
    let (won, told): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| *status == 201);
    assert_eq!((won.len(), told.len()), (1, 11), "{answers:?}");
    for (status, body) in told {
        assert_eq!((*status, &body["error"]["code"]), (409, &json!("CONFLICT")));
    }
    let (_, shown) = service.get("/api/v1/event-types/raced").await;
    assert_eq!((shown["versions"].as_array().unwrap().len(), &shown["versions"][0]), (1, &won[0].1));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_service_sees_a_version_within_the_refresh_time() {
    let service = TestService::new().await;
    let second = service.second(&[("TALLYHOUSE_EVENT_TYPES_REFRESH_SECONDS", "1")]).await;
    assert_eq!(put(&service, "purchase", json!({ "schema": purchase() })).await.0, 201);
    let ingest = second.ingest().await;
    let tries = std::sync::atomic::AtomicU32::new(0);
    eventually("a check", || {
        let (mut ingest, n) = (ingest.clone(), tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        async move {
            let events = vec![bought_by_grpc(&format!("bad-{n}"), &json!({}))];
            let request = proto::IngestBatchRequest { events, ..Default::default() };
            ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap().rejected == 1
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_versions_are_bounded() {
    let settings = [("TALLYHOUSE_EVENT_TYPES_MAX", "2"), ("TALLYHOUSE_EVENT_TYPE_VERSIONS_MAX", "2")];
    let service = TestService::with(&settings).await;
    assert_eq!(put(&service, "a", json!({})).await.0, 201);
    assert_eq!(put(&service, "b", json!({})).await.0, 201);
    let (status, body) = put(&service, "c", json!({})).await;
    assert_eq!((status, places(&body)), (422, vec!["type"]));
    let force = |n: u32| json!({"schema": {"required": [format!("r{n}")]}, "force": true});
    assert_eq!(put(&service, "a", force(1)).await.0, 201);
    let (status, body) = put(&service, "a", force(2)).await;
    assert_eq!((status, places(&body)), (422, vec!["version"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_registers_as_rest_does() {
    let service = TestService::new().await;
    let mut types = EventTypeServiceClient::new(service.channel().await);
    let request = |version: u32, schema: Value, force: bool| proto::RegisterEventTypeRequest {
        r#type: "purchase".to_owned(),
        version,
        schema: schema.to_string(),
        force,
    };
    let first = types.register_event_type(request(0, purchase(), false)).await.unwrap().into_inner();
    let version = first.version.unwrap();
    assert_eq!((first.created, version.version, &*version.schema), (true, 1, &*purchase().to_string()));
    let again = types.register_event_type(request(1, purchase(), false)).await.unwrap().into_inner();
    assert_eq!((again.created, again.version), (false, Some(version.clone())));
    for (request, code, reason, field) in [
        (request(1, json!({}), false), Code::Aborted, "CONFLICT", None),
        (request(9, json!({}), false), Code::InvalidArgument, "VALIDATION_ERROR", Some("version")),
        (request(0, json!({"type": "x"}), false), Code::InvalidArgument, "VALIDATION_ERROR", Some("schema.type")),
        (
            request(0, json!({"required": ["sku"]}), false),
            Code::FailedPrecondition,
            "INCOMPATIBLE_SCHEMA",
            Some("properties.sku"),
        ),
    ] {
        let status = types.register_event_type(request).await.unwrap_err();
        let details = status.get_error_details();
        let fields = details.bad_request().map(|bad| bad.field_violations[0].field.clone());
        let got = (status.code(), details.error_info().unwrap().reason.clone(), fields.as_deref());
        assert_eq!(got, (code, reason.to_owned(), field));
    }
    let forced = types.register_event_type(request(0, json!({"required": ["sku"]}), true)).await.unwrap().into_inner();
    assert_eq!(forced.version.as_ref().unwrap().version, 2);
    let listed = types.list_event_types(proto::ListEventTypesRequest {}).await.unwrap().into_inner().event_types;
    assert_eq!((listed.len(), listed[0].version, listed[0].has_schema), (1, 2, true));
    let shown =
        types.get_event_type(proto::GetEventTypeRequest { r#type: "purchase".to_owned(), version: 0 }).await.unwrap();
    assert_eq!(shown.into_inner().versions, [forced.version.unwrap(), version]);
}
