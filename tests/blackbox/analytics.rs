//! The customer-analytics contract, to the letter.

use serde_json::{Value, json};

use crate::events::now_millis;
use crate::service::TestService;

/// A time as JSON has it.
pub(crate) fn rfc3339(millis: i64) -> String {
    let at = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap();
    at.format(&time::format_description::well_known::Rfc3339).unwrap()
}

/// A valid event.
pub(crate) fn event(id: &str) -> Value {
    json!({
        "event_id": id, "user_id": "u_1", "event_type": "page_view", "properties": {"b": 1, "a": [true, null]},
        "timestamp": rfc3339(now_millis()), "seq": 7, "source": "web", "campaign_id": "camp_1", "creative_id": "cr_1",
    })
}

fn with(id: &str, field: &str, value: Value) -> Value {
    let mut event = event(id);
    event[field] = value;
    event
}

/// The fields of an error's details, in order.
fn fields(body: &Value) -> Vec<&str> {
    let details = body["error"]["details"].as_array().unwrap();
    details.iter().map(|detail| detail["field"].as_str().unwrap()).collect()
}

/// Index, code and field of what was rejected.
fn rejected(body: &Value) -> Vec<(u64, &str, &str)> {
    let rejected = body["rejected"].as_array().unwrap().iter();
    rejected
        .map(|event| {
            assert_eq!(event.as_object().unwrap().len(), 5, "{event}");
            assert_eq!(event["details"][0], json!({"field": event["field"], "message": event["message"]}));
            assert!(!event["message"].as_str().unwrap().is_empty(), "{event}");
            (event["index"].as_u64().unwrap(), event["code"].as_str().unwrap(), event["field"].as_str().unwrap())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn posting_events_judges_each_for_itself() {
    let service = TestService::new().await;
    let post = async |events: Value| service.post("/api/v1/events", &json!({ "events": events })).await;
    let (first, old) = (event("e-1"), rfc3339(0));
    let none = json!([]);
    let answer = post(json!([first])).await;
    assert_eq!(answer, (202, json!({"accepted": 1, "duplicates": 0, "rejected": none})));
    let (status, answer) = post(json!([
        first,
        with("e-1", "source", json!("ios")),
        with("e-2", "event_type", json!("two words")),
        with("e-3", "timestamp", json!(old)),
        with("e-4", "timestamp", json!("2999-01-01T00:00:00Z")),
        {"event_id": "e-5", "timestamp": 17, "seq": -1, "properties": []},
        with("", "user_id", json!("u")),
        ["e-7"],
        {"event_id": "e-8", "timestamp": first["timestamp"]},
        {"event_id": "e-10", "event_type": "x", "timestamp": first["timestamp"]},
        {"event_id": "e-11", "event_type": "x", "timestamp": first["timestamp"], "properties": null, "more": {}},
    ]))
    .await;
    assert_eq!((status, &answer["accepted"], &answer["duplicates"]), (202, &json!(2), &json!(1)), "{answer}");
    assert_eq!(
        rejected(&answer),
        [
            (1, "CONFLICT", "event_id"),
            (2, "INVALID", "event_type"),
            (3, "TOO_OLD", "timestamp"),
            (4, "IN_FUTURE", "timestamp"),
            (5, "INVALID", "event_type"),
            (6, "INVALID", "event_id"),
            (7, "INVALID", "event"),
            (8, "INVALID", "event_type"),
        ]
    );
    let details = answer["rejected"][4]["details"].as_array().unwrap();
    let each: Vec<&Value> = details.iter().map(|detail| &detail["field"]).collect();
    assert_eq!(each, ["event_type", "properties", "timestamp", "seq"], "{answer}");

    // Nothing taken: an error, which names every event and field.
    let (status, answer) = post(json!([{}, with("e-1", "source", json!("ios")), 5])).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("VALIDATION_ERROR")), "{answer}");
    let each =
        ["events[0].event_id", "events[0].event_type", "events[0].timestamp", "events[1].event_id", "events[2].event"];
    assert_eq!(fields(&answer), each);
    let details = answer["error"]["details"].as_array().unwrap();
    let codes: Vec<&Value> = details.iter().map(|detail| &detail["code"]).collect();
    assert_eq!(codes, ["INVALID", "INVALID", "INVALID", "CONFLICT", "INVALID"], "{answer}");

    for (body, expected) in [
        (json!({ "events": [] }), ["events"]),
        (json!({ "events": vec![event("x"); 101] }), ["events"]),
        (json!({ "events": {} }), ["events"]),
        (json!({ "events": null }), ["events"]),
        (json!({}), ["events"]),
        (json!([first]), ["body"]),
    ] {
        let (status, answer) = service.post("/api/v1/events", &body).await;
        assert_eq!((status, fields(&answer)), (422, expected.to_vec()), "{answer}");
    }
    let many: Vec<Value> = (0..100).map(|n| event(&format!("many-{n}"))).collect();
    assert_eq!(post(json!(many)).await.1["accepted"], 100);
    service.settled().await;
    assert_eq!(service.sql("SELECT count() FROM events").await, "103");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_body_is_answered_400_or_422() {
    let service = TestService::new().await;
    let send = async |body: Vec<u8>, content_type: &str| {
        let request = service.http.post(format!("{}/api/v1/events", service.url)).header("content-type", content_type);
        let answer = request.body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap()["error"]["code"].as_str().unwrap().to_owned())
    };
    let deep = "[".repeat(500_000);
    let closed = format!("{{\"events\":{deep}{}}}", "]".repeat(500_000));
    let wide = format!("{{\"events\":[{}0]}}", "0,".repeat(900_000));
    for (body, expected) in [
        ("".to_owned(), 400),
        ("{".to_owned(), 400),
        ("{\"events\":[{]}".to_owned(), 400),
        ("{\"events\":[{}]} x".to_owned(), 400),
        ("{\"events\":[\"\u{1}\"]}".to_owned(), 400),
        (format!("{{\"events\":{deep}"), 400),
        ("[]".to_owned(), 422),
        ("null".to_owned(), 422),
        ("{\"events\":[],\"events\":[]}".to_owned(), 422),
        ("{\"events\":[{\"event_id\":\"\\ud800\"}]}".to_owned(), 422),
        (closed, 422),
        (wide, 422),
    ] {
        let start: String = body.chars().take(40).collect();
        let code = if expected == 400 { "MALFORMED_JSON" } else { "VALIDATION_ERROR" };
        assert_eq!(send(body.into_bytes(), "application/json").await, (expected, code.to_owned()), "{start}");
    }
    assert_eq!(send(b"{\"events\":[\"\xff\"]}".to_vec(), "application/json").await.0, 400);
    assert_eq!(send(b"{}".to_vec(), "text/plain").await.0, 415);
    assert_eq!(send(vec![b' '; 3 << 20], "application/json").await.0, 413);
    assert_eq!(service.get("/healthz").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_has_two_pages() {
    let service = TestService::new().await;
    for path in ["/docs/", "/redoc"] {
        let answer = service.http.get(format!("{}{path}", service.url)).send().await.unwrap();
        let content_type = answer.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!((answer.status().as_u16(), content_type.starts_with("text/html")), (200, true), "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        for (name, value) in [("x-content-type-options", "nosniff"), ("cache-control", "no-cache")] {
            assert_eq!(answer.headers()[name], value, "{path}");
        }
    }
}
