//! The REST contract, to the letter.

use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::service::TestService;

fn rfc3339(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap()
}

fn event(id: &str) -> Value {
    json!({
        "event_id": id, "type": "click", "campaign_id": "camp_123", "creative_id": "cr_1", "source": "web",
        "occurred_at": rfc3339(OffsetDateTime::now_utc()), "user_id": "u_1", "metadata": {"b": 1, "a": [true, null]},
    })
}

fn without(id: &str, field: &str) -> Value {
    let mut event = event(id);
    event.as_object_mut().unwrap().remove(field);
    event
}

fn with(id: &str, field: &str, value: Value) -> Value {
    let mut event = event(id);
    event[field] = value;
    event
}

fn fields(body: &Value) -> Vec<&str> {
    assert_eq!(body["error"]["code"], "VALIDATION_ERROR", "{body}");
    let details = body["error"]["details"].as_array().unwrap();
    let mut fields: Vec<&str> = details.iter().map(|detail| detail["field"].as_str().unwrap()).collect();
    fields.sort_unstable();
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn posting_an_event_answers_as_the_contract_says() {
    let service = TestService::new().await;
    let accepted = event("evt_1");
    assert_eq!(service.post("/events", &accepted).await, (202, json!({"status": "accepted", "event_id": "evt_1"})));
    assert_eq!(service.post("/events", &accepted).await, (202, json!({"status": "duplicate", "event_id": "evt_1"})));
    let mut reordered = accepted.clone();
    reordered["metadata"] = json!({"a": [true, null], "b": 1});
    assert_eq!(service.post("/events", &reordered).await.1["status"], "duplicate", "order of keys is no difference");
    let conflict = with("evt_1", "source", json!("ios"));
    assert_eq!(service.post("/events", &conflict).await, (202, json!({"status": "conflict", "event_id": "evt_1"})));

    for (body, expected) in [
        (json!({}), vec!["campaign_id", "event_id", "occurred_at", "source", "type"]),
        (without("e", "source"), vec!["source"]),
        (with("e", "type", json!("view")), vec!["type"]),
        (with("e", "event_id", json!(7)), vec!["event_id"]),
        (with("e", "event_id", json!("")), vec!["event_id"]),
        (with("e", "occurred_at", json!("yesterday")), vec!["occurred_at"]),
        (with("e", "occurred_at", json!("2999-01-01T00:00:00Z")), vec!["occurred_at"]),
        (with("e", "metadata", json!([])), vec!["metadata"]),
        (with("e", "campaign_id", json!("x".repeat(300))), vec!["campaign_id"]),
    ] {
        let (status, answer) = service.post("/events", &body).await;
        assert_eq!((status, fields(&answer)), (422, expected), "{body}");
    }
    // Optional fields may be missing or null; unknown ones do not matter.
    let mut sparse = with("evt_2", "anything", json!({"x": 1}));
    for field in ["creative_id", "user_id", "metadata"] {
        sparse[field] = Value::Null;
    }
    assert_eq!(service.post("/events", &sparse).await.1["status"], "accepted");
    // Offsets are converted: this is the same moment.
    let early = with("evt_3", "occurred_at", json!("2026-10-10T23:30:00.250+02:00"));
    let same = with("evt_3", "occurred_at", json!("2026-10-10T21:30:00.250Z"));
    assert_eq!(service.post("/events", &early).await.1["status"], "accepted");
    assert_eq!(service.post("/events", &same).await.1["status"], "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_get_an_answer_and_harm_nobody() {
    let service =
        TestService::with(&[("TALLYHOUSE_BODY_BYTES_MAX", "10000"), ("TALLYHOUSE_BODY_WAIT_MS_MAX", "300")]).await;
    let send = |content_type: Option<&'static str>, body: Vec<u8>| {
        let mut request = service.http.post(format!("{}/events", service.url)).body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        async move {
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let body: Value = answer.json().await.unwrap();
            assert!(body["error"]["code"].is_string() && body["error"]["details"].is_array(), "{body}");
            status
        }
    };
    let json = Some("application/json");
    for body in [
        &b""[..],
        b"{",
        b"null",
        b"[]",
        b"\"x\"",
        b"{\"event_id\":\"\xff\xfe\"}",
        b"{\"event_id\":\"\\ud800\"}",
        b"{}{}",
        b"{\"event_id\":1e999}",
    ] {
        assert_eq!(send(json, body.to_vec()).await, 422, "{body:?}");
    }
    assert_eq!(send(json, "[".repeat(9_000).into_bytes()).await, 422);
    let nested = format!("{{\"metadata\":{}{}}}", "{\"a\":".repeat(1_000), "1".to_owned() + &"}".repeat(1_000));
    assert_eq!(send(json, nested.into_bytes()).await, 422);
    assert_eq!(send(json, vec![b' '; 10_001]).await, 413);
    assert_eq!(send(json, vec![b' '; 20 << 20]).await, 413, "the whole body is taken before the answer");
    assert_eq!(send(Some("text/plain"), b"{}".to_vec()).await, 415);
    assert_eq!(send(None, b"{}".to_vec()).await, 415);
    // A body that never comes.
    let pending = tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let slow = service
        .http
        .post(format!("{}/events", service.url))
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(pending))
        .timeout(Duration::from_secs(20))
        .send()
        .await
        .unwrap();
    assert_eq!(slow.status(), 408);

    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/events/nobody", 404),
        ("PUT", "/events", 405),
        ("POST", "/stats", 405),
        ("DELETE", "/healthz", 405),
        ("GET", "/stats", 422),
        ("GET", "/events?limit=0", 422),
        ("GET", "/events?limit=501", 422),
        ("GET", "/events?cursor=garbage", 422),
        ("GET", "/users/top?limit=x", 422),
        ("GET", "/events/%ff", 404),
        ("GET", "/stats?campaign_id=%00&from=%FF", 422),
    ] {
        let url = format!("{}{path}", service.url);
        let answer = service.http.request(method.parse().unwrap(), url).send().await.unwrap();
        let got = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert!(body["error"]["message"].is_string(), "{method} {path}: {body}");
        let is_client_error = (400..500).contains(&got);
        assert!(got == status || (path.contains('%') && is_client_error), "{method} {path}: {got} {body}");
    }
    assert_eq!(service.post("/events", &event("after")).await.0, 202, "and life goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn stats_answer_as_the_contract_says() {
    let service = TestService::new().await;
    let day = OffsetDateTime::now_utc() - time::Duration::days(3);
    let at = |hour: u8, minute: u8| day.replace_time(time::Time::from_hms(hour, minute, 30).unwrap());
    for (n, (kind, moment)) in [
        ("impression", at(21, 10)),
        ("impression", at(21, 10)),
        ("click", at(21, 10)),
        ("click", at(21, 14)),
        ("click", at(21, 20)),
    ]
    .into_iter()
    .enumerate()
    {
        let mut body = with(&format!("evt_{n}"), "type", json!(kind));
        body["occurred_at"] = json!(rfc3339(moment));
        assert_eq!(service.post("/events", &body).await.0, 202);
    }
    service.settled().await;
    let date = day.date();
    let path = format!("/stats?campaign_id=camp_123&from={date}T21:10:00Z&to={date}T21:20:00Z");
    let expected = json!({
        "campaign_id": "camp_123", "from": format!("{date}T21:10:00Z"), "to": format!("{date}T21:20:00Z"),
        "granularity": "minute",
        "series": [
            {"ts": format!("{date}T21:10:00Z"), "impressions": 2, "clicks": 1},
            {"ts": format!("{date}T21:14:00Z"), "impressions": 0, "clicks": 1},
        ],
    });
    assert_eq!(service.get(&path).await, (200, expected.clone()));
    let answer = service.http.get(format!("{}{path}", service.url)).send().await.unwrap();
    assert_eq!(answer.headers()["x-cache"], "HIT");
    let watermark = answer.headers()["x-watermark"].to_str().unwrap();
    assert!(OffsetDateTime::parse(watermark, &Rfc3339).is_ok() && watermark.ends_with('Z'), "{watermark}");
    // An offset, once encoded and once as people type it.
    for offset in ["%2B02:00", "+02:00"] {
        let path = format!("/stats?campaign_id=camp_123&from={date}T23:10:00{offset}&to={date}T23:20:00{offset}");
        assert_eq!(service.get(&path).await, (200, expected.clone()), "{offset}");
    }
    let hourly = service.get(&format!("{path}&granularity=hour")).await.1;
    assert_eq!(hourly["series"], json!([{"ts": format!("{date}T21:00:00Z"), "impressions": 2, "clicks": 2}]));
    let unknown = service.get(&path.replace("camp_123", "nobody")).await;
    assert_eq!((unknown.0, &unknown.1["series"]), (200, &json!([])));

    for (query, expected) in [
        ("", vec!["campaign_id", "from", "to"]),
        ("campaign_id=c&from=x&to=2026-01-01T00:00:00Z", vec!["from"]),
        ("campaign_id=c&from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", vec!["from"]),
        ("campaign_id=c&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z&granularity=week", vec!["granularity"]),
        ("campaign_id=c&from=2026-01-01T00:00:00Z&to=2026-02-04T17:21:00Z", vec!["granularity"]),
    ] {
        let (status, body) = service.get(&format!("/stats?{query}")).await;
        assert_eq!((status, fields(&body)), (422, expected), "{query}");
    }
    // Exactly 50,000 minutes are allowed.
    let (status, _) = service.get("/stats?campaign_id=c&from=2026-01-01T00:00:00Z&to=2026-02-04T17:20:00Z").await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_rankings_can_be_read_back() {
    let service = TestService::new().await;
    for n in 0..7 {
        let mut body = event(&format!("evt_{n}"));
        body["user_id"] = json!(format!("u_{}", n % 2));
        assert_eq!(service.post("/events", &body).await.0, 202);
    }
    service.settled().await; // The raw table has an event a moment before the rollups do.
    assert_eq!(service.get("/events").await.1["events"].as_array().unwrap().len(), 7);
    let (_, first) = service.get("/events?limit=5&campaign_id=camp_123").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = service.get(&format!("/events?limit=5&campaign_id=camp_123&cursor={cursor}")).await;
    assert_eq!(second["events"].as_array().unwrap().len(), 2);
    assert_eq!(second["next_cursor"], Value::Null);
    let (status, one) = service.get("/events/evt_3").await;
    assert_eq!(
        (status, &one["event_id"], &one["metadata"]),
        (200, &json!("evt_3"), &json!({"a": [true, null], "b": 1}))
    );
    let (_, users) = service.get("/users/top?window=24h&limit=5").await;
    assert_eq!(users["users"], json!([{"user_id": "u_0", "events": 4}, {"user_id": "u_1", "events": 3}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_describes_itself() {
    let service = TestService::new().await;
    assert_eq!(service.get("/healthz").await.0, 200);
    assert_eq!(service.get("/readyz").await.1["status"], "ready");
    let (status, openapi) = service.get("/openapi.json").await;
    assert_eq!(status, 200);
    for path in ["/events", "/events/{event_id}", "/stats", "/users/top", "/healthz", "/readyz"] {
        assert!(openapi["paths"][path].is_object(), "{path}");
    }
    let docs = service.http.get(format!("{}/docs/", service.url)).send().await.unwrap();
    assert_eq!(docs.status(), 200);
    assert!(docs.text().await.unwrap().contains("swagger"));
    let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("tallyhouse_log_events"), "{metrics}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_taken_within_their_bounds() {
    let service = TestService::new().await;
    let post = async |path: &str, encoding: &str, body: Vec<u8>| {
        let request = service.http.post(format!("{}{path}", service.url)).header("content-type", "application/json");
        request.header("content-encoding", encoding).body(body).send().await.unwrap()
    };
    let event = json!({
        "event_id": "e", "type": "click", "campaign_id": "c", "source": "s",
        "occurred_at": rfc3339(OffsetDateTime::now_utc()),
    });
    let answer = post("/events", "gzip", gzip(event.to_string().as_bytes())).await;
    assert_eq!(
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["status"].take()),
        (202, json!("accepted"))
    );
    let events: Vec<Value> = (0..100).map(|n| crate::analytics::event(&format!("v1-{n}"))).collect();
    let answer = post("/api/v1/events", "x-gzip", gzip(json!({ "events": events }).to_string().as_bytes())).await;
    assert_eq!(answer.json::<Value>().await.unwrap()["accepted"], json!(100));
    // A thousand times as large as it looks.
    let bomb = gzip(&vec![b' '; 256 << 20]);
    assert!(bomb.len() < 1 << 20);
    for path in ["/events", "/api/v1/events"] {
        let answer = post(path, "gzip", bomb.clone()).await;
        assert_eq!(
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["error"]["code"].take()),
            (413, json!("TOO_LARGE"))
        );
        assert_eq!(post(path, "gzip", b"{}".to_vec()).await.status(), 422);
        let answer = post(path, "br", b"{}".to_vec()).await;
        assert_eq!((answer.status().as_u16(), &answer.headers()["accept-encoding"]), (415, &"gzip".parse().unwrap()));
    }
    service.assert_stored(101).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_compressed_for_who_takes_gzip() {
    let service = TestService::new().await;
    let get = async |path: &str, encodings: &str| {
        let request = service.http.get(format!("{}{path}", service.url)).header("accept-encoding", encodings);
        let answer = request.send().await.unwrap();
        let encoding = answer.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
        (encoding, answer.bytes().await.unwrap())
    };
    let (encoding, plain) = get("/openapi.json", "identity").await;
    assert_eq!(encoding, None);
    let (encoding, compressed) = get("/openapi.json", "br, gzip;q=0.8").await;
    assert_eq!(encoding.as_deref(), Some("gzip"));
    assert!(compressed.len() * 4 < plain.len(), "{} of {}", compressed.len(), plain.len());
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*compressed), &mut text).unwrap();
    assert_eq!(text, plain);
    assert_eq!(get("/healthz", "gzip").await.0, None, "too small to be worth it");
}
