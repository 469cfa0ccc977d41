//! Cursors: every event once, and for one list only.

use std::collections::HashSet;

use serde_json::{Value, json};
use tallyhouse::transport::proto;

use crate::analytics::{event, rfc3339};
use crate::events::{click, now_millis};
use crate::service::TestService;
use crate::tokens::{SECRET, Signer};

const DAY: i64 = 24 * 3_600_000;

/// One page of the list.
#[derive(serde::Deserialize)]
struct Page {
    events: Vec<Shown>,
    next_cursor: Option<String>,
}

#[derive(serde::Deserialize)]
struct Shown {
    event_id: String,
    timestamp: String,
}

/// Stores events a batch at a time.
async fn preload(service: &TestService, events: Vec<proto::Event>) {
    let mut ingest = service.ingest().await;
    for batch in events.chunks(10_000) {
        let request = proto::IngestBatchRequest { events: batch.to_vec(), ..Default::default() };
        let counts = ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
        assert_eq!(counts.accepted as usize, batch.len());
    }
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_event_once_while_others_are_written() {
    const COUNT: i64 = 100_000;
    let service = TestService::new().await;
    let start = now_millis() - DAY;
    // Some twenty events share each millisecond; ids do not follow time.
    let at = |n: i64| start + (n * 7_919 % COUNT) / 20 * 17_003;
    preload(&service, (0..COUNT).map(|n| click(&format!("old-{}", n * 31 % COUNT), at(n))).collect()).await;

    let ingest = service.ingest().await;
    let write = async |n: i64| {
        // Amid the old ones, at their very milliseconds and beside them; before them; after them.
        let times = [at(n), at(n * 13), at(n * 29) + 1, start - 1_000, now_millis()];
        let batch = times.iter().enumerate().map(|(place, millis)| click(&format!("new-{n}-{place}"), *millis));
        let request = proto::IngestBatchRequest { events: batch.collect(), ..Default::default() };
        ingest.clone().ingest_batch(request).await.unwrap();
    };
    let (mut seen, mut others) = (HashSet::new(), HashSet::new());
    let (mut cursor, mut last, mut pages) = (String::new(), None, 0);
    loop {
        let path = format!("/api/v1/events?limit=500&cursor={cursor}");
        let (page, ()) = tokio::join!(service.http.get(format!("{}{path}", service.url)).send(), write(pages));
        let page: Page = page.unwrap().error_for_status().unwrap().json().await.unwrap();
        pages += 1;
        for Shown { event_id, timestamp } in page.events {
            let format = &time::format_description::well_known::Rfc3339;
            let time = time::OffsetDateTime::parse(&timestamp, format).unwrap();
            assert!(last.is_none_or(|last| last >= time), "newest first");
            last = Some(time);
            let ids = if event_id.starts_with("old-") { &mut seen } else { &mut others };
            assert!(ids.insert(event_id), "an event came twice");
        }
        match page.next_cursor {
            Some(next) => cursor = next,
            None => break,
        }
    }
    assert_eq!(seen.len() as i64, COUNT);
    assert!(!others.is_empty(), "some that were written meanwhile were seen, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_say_which_events_are_listed() {
    let service = TestService::new().await;
    let midnight = now_millis().div_euclid(DAY) * DAY - 3 * DAY;
    let post = |id: &str, millis: i64, field: &str, value: &str| {
        let mut event = event(id);
        event["timestamp"] = json!(rfc3339(millis));
        event[field] = json!(value);
        event
    };
    let events = json!([
        post("a", midnight - 1, "event_type", "login"),
        post("b", midnight, "user_id", "u_2"),
        post("c", midnight + DAY - 1, "event_type", "logout"),
        post("d", midnight + DAY, "campaign_id", "camp_2"),
    ]);
    assert_eq!(service.post("/api/v1/events", &json!({ "events": events })).await.1["accepted"], 4);
    service.settled().await;
    let date = |millis: i64| rfc3339(millis)[..10].to_owned();
    let (day, next, moment) = (date(midnight), date(midnight + DAY), rfc3339(midnight + DAY));
    let ids = async |query: &str| {
        let (status, page) = service.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!(status, 200, "{query}: {page}");
        let events = page["events"].as_array().unwrap().clone();
        events.iter().map(|event| event["event_id"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(ids("").await, "dcba");
    assert_eq!(ids(&format!("start_date={day}&end_date={day}")).await, "cb", "a day as the end is included");
    assert_eq!(ids(&format!("start_date={day}&end_date={moment}")).await, "cb", "a time as the end is not");
    assert_eq!(ids(&format!("start_date={next}")).await, "d");
    assert_eq!(ids(&format!("end_date={day}&event_type=login&event_type=page_view")).await, "ba");
    assert_eq!(ids("user_id=u_2").await, "b");
    assert_eq!(ids("campaign_id=camp_2&org_id=default").await, "d");
    assert_eq!(ids("start_date=0001-01-01&end_date=9999-12-31T00:00:00Z").await, "dcba");

    let (status, one) = service.get("/api/v1/events/b").await;
    assert_eq!(status, 200);
    let received_at = one["received_at"].clone();
    let expected = json!({
        "event_id": "b", "user_id": "u_2", "event_type": "page_view", "properties": {"a": [true, null], "b": 1},
        "timestamp": rfc3339(midnight), "seq": 7, "source": "web", "campaign_id": "camp_1", "creative_id": "cr_1",
        "received_at": received_at, "schema_version": 0,
    });
    assert_eq!(one, expected);
    assert_eq!(service.get("/api/v1/events/none").await.0, 404);

    let refused = |query: &'static str, status: u16, field: &'static str| (query, status, field);
    for (query, status, field) in [
        refused("limit=501", 422, "limit"),
        refused("start_date=yesterday", 422, "start_date"),
        refused("start_date=2026-02-02&end_date=2026-02-01", 422, "start_date"),
        refused("cursor=AAAA", 400, "cursor"),
    ] {
        let (got, answer) = service.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!((got, answer["error"]["details"][0]["field"].as_str()), (status, Some(field)), "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_for_one_list_only_and_survives_a_restart() {
    let mut service = TestService::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let token = |org_id: &str| Signer::secret(SECRET).token(org_id, "ingest read admin");
    let get = async |service: &TestService, org_id: &str, path: &str| {
        let answer =
            service.http.get(format!("{}{path}", service.url)).bearer_auth(token(org_id)).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let events: Vec<Value> = (0..3).map(|n| event(&format!("e-{n}"))).collect();
    let request = service.http.post(format!("{}/api/v1/events", service.url)).bearer_auth(token("acme"));
    assert_eq!(request.json(&json!({ "events": events })).send().await.unwrap().status(), 202);
    let first = async |service: &TestService| {
        get(service, "acme", "/api/v1/events?limit=1&user_id=u_1").await.1["next_cursor"].clone()
    };
    crate::service::eventually("events", || async { first(&service).await.is_string() }).await;
    let cursor = first(&service).await.as_str().unwrap().to_owned();
    let with = |more: &str, cursor: &str| format!("/api/v1/events?limit=1{more}&cursor={cursor}");
    assert_eq!(get(&service, "acme", &with("&user_id=u_1", &cursor)).await.0, 200);
    let altered = |n: usize| {
        let mut altered = cursor.clone().into_bytes();
        altered[n] = if altered[n] == b'A' { b'B' } else { b'A' };
        String::from_utf8(altered).unwrap()
    };
    for (org_id, path) in [
        ("acme", with("", &cursor)),
        ("acme", with("&user_id=u_2", &cursor)),
        ("acme", with("&user_id=u_1&start_date=2026-01-01", &cursor)),
        ("acme", with("&user_id=u_1", &altered(0))),
        ("acme", with("&user_id=u_1", &altered(cursor.len() / 2))),
        ("acme", with("&user_id=u_1", &cursor[..cursor.len() - 4])),
        ("beta", with("&user_id=u_1", &cursor)),
        ("acme", format!("/api/v1/organizations/acme/members?cursor={cursor}")),
    ] {
        let (status, answer) = get(&service, org_id, &path).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("INVALID_CURSOR")), "{org_id} {path}: {answer}");
    }
    service.stop();
    service.start().await;
    assert_eq!(get(&service, "acme", &with("&user_id=u_1", &cursor)).await.0, 200, "after a restart");
    service.stop();
    service.set("TALLYHOUSE_CURSOR_SECRET", "another secret of thirty-two bytes");
    service.start().await;
    assert_eq!(get(&service, "acme", &with("&user_id=u_1", &cursor)).await.0, 400, "under another key");
}
