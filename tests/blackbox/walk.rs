//! Cursors: every event once, and for one list only.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tallyhouse::transport::proto;

use crate::analytics::{event, rfc3339};
use crate::events::{click, now_millis};
use crate::house::House;
use crate::tokens::{SECRET, Signer};

const DAY: i64 = 24 * 3_600_000;

/// Stores events a batch at a time.
async fn preload(house: &House, events: Vec<proto::Event>) {
    let mut ingest = house.ingest().await;
    for batch in events.chunks(10_000) {
        let request = proto::IngestBatchRequest { events: batch.to_vec(), ..Default::default() };
        let counts = ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
        assert_eq!(counts.accepted as usize, batch.len());
    }
    house.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_shows_each_event_once_while_others_are_written() {
    const COUNT: i64 = 100_000;
    let house = House::new().await;
    let start = now_millis() - DAY;
    // Some twenty events share each millisecond; ids do not follow time.
    let at = |n: i64| start + (n * 7_919 % COUNT) / 20 * 17;
    preload(&house, (0..COUNT).map(|n| click(&format!("old-{}", n * 31 % COUNT), at(n))).collect()).await;

    let is_over = AtomicBool::new(false);
    let writing = async {
        let mut ingest = house.ingest().await;
        let mut written = 0;
        while !is_over.load(Ordering::Relaxed) {
            // Amid the old ones, at their very milliseconds, before them, after them, and now.
            let times = [at(written), at(written * 13), start - 1_000, start + COUNT, now_millis()];
            let batch = times.iter().enumerate().map(|(n, millis)| click(&format!("new-{written}-{n}"), *millis));
            let request = proto::IngestBatchRequest { events: batch.collect(), ..Default::default() };
            ingest.ingest_batch(request).await.unwrap();
            written += 1;
        }
        written
    };
    let walking = async {
        let (mut seen, mut others) = (HashSet::new(), HashSet::new());
        let (mut cursor, mut last) = (String::new(), None);
        loop {
            let (status, page) = house.get(&format!("/api/v1/events?limit=500&cursor={cursor}")).await;
            assert_eq!(status, 200, "{page}");
            for event in page["events"].as_array().unwrap() {
                let id = event["event_id"].as_str().unwrap().to_owned();
                let time = event["timestamp"].as_str().unwrap();
                let time = time::OffsetDateTime::parse(time, &time::format_description::well_known::Rfc3339).unwrap();
                assert!(last.is_none_or(|last| last >= time), "newest first");
                last = Some(time);
                let is_first = if id.starts_with("old-") { seen.insert(id.clone()) } else { others.insert(id.clone()) };
                assert!(is_first, "{id} came twice");
            }
            match page["next_cursor"].as_str() {
                Some(next) => next.clone_into(&mut cursor),
                None => break,
            }
        }
        is_over.store(true, Ordering::Relaxed);
        (seen.len(), others.len())
    };
    let ((seen, others), written) = tokio::join!(walking, writing);
    assert_eq!(seen as i64, COUNT);
    assert!(others > 0 && written > 0, "some were written meanwhile: {written}, of which {others} were seen");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_say_which_events_are_listed() {
    let house = House::new().await;
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
    assert_eq!(house.post("/api/v1/events", &json!({ "events": events })).await.1["accepted"], 4);
    house.settled().await;
    let date = |millis: i64| rfc3339(millis)[..10].to_owned();
    let (day, next, moment) = (date(midnight), date(midnight + DAY), rfc3339(midnight + DAY));
    let ids = async |query: &str| {
        let (status, page) = house.get(&format!("/api/v1/events?{query}")).await;
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

    let (status, one) = house.get("/api/v1/events/b").await;
    assert_eq!(status, 200);
    let received_at = one["received_at"].clone();
    let expected = json!({
        "event_id": "b", "user_id": "u_2", "event_type": "page_view", "properties": {"a": [true, null], "b": 1},
        "timestamp": rfc3339(midnight), "seq": 7, "source": "web", "campaign_id": "camp_1", "creative_id": "cr_1",
        "received_at": received_at,
    });
    assert_eq!(one, expected);
    assert_eq!(house.get("/api/v1/events/none").await.0, 404);

    let refused = |query: &'static str, status: u16, field: &'static str| (query, status, field);
    for (query, status, field) in [
        refused("limit=501", 422, "limit"),
        refused("start_date=yesterday", 422, "start_date"),
        refused("start_date=2026-02-02&end_date=2026-02-01", 422, "start_date"),
        refused("cursor=AAAA", 400, "cursor"),
    ] {
        let (got, answer) = house.get(&format!("/api/v1/events?{query}")).await;
        assert_eq!((got, answer["error"]["details"][0]["field"].as_str()), (status, Some(field)), "{query}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_for_one_list_only_and_survives_a_restart() {
    let mut house = House::with(&[("TALLYHOUSE_AUTH_HS256_SECRET", SECRET)]).await;
    let token = |org_id: &str| Signer::secret(SECRET).token(org_id, "ingest read admin");
    let get = async |house: &House, org_id: &str, path: &str| {
        let answer = house.http.get(format!("{}{path}", house.url)).bearer_auth(token(org_id)).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let events: Vec<Value> = (0..3).map(|n| event(&format!("e-{n}"))).collect();
    let request = house.http.post(format!("{}/api/v1/events", house.url)).bearer_auth(token("acme"));
    assert_eq!(request.json(&json!({ "events": events })).send().await.unwrap().status(), 202);
    let first =
        async |house: &House| get(house, "acme", "/api/v1/events?limit=1&user_id=u_1").await.1["next_cursor"].clone();
    crate::house::eventually("events", || async { first(&house).await.is_string() }).await;
    let cursor = first(&house).await.as_str().unwrap().to_owned();
    let with = |more: &str, cursor: &str| format!("/api/v1/events?limit=1{more}&cursor={cursor}");
    assert_eq!(get(&house, "acme", &with("&user_id=u_1", &cursor)).await.0, 200);
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
        let (status, answer) = get(&house, org_id, &path).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("INVALID_CURSOR")), "{org_id} {path}: {answer}");
    }
    house.stop();
    house.start().await;
    assert_eq!(get(&house, "acme", &with("&user_id=u_1", &cursor)).await.0, 200, "after a restart");
    house.stop();
    house.set("TALLYHOUSE_CURSOR_SECRET", "another secret of thirty-two bytes");
    house.start().await;
    assert_eq!(get(&house, "acme", &with("&user_id=u_1", &cursor)).await.0, 400, "under another key");
}
