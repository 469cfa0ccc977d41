//! The event pipeline, by its contract, with a real Redis.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tallyhouse_testkit::TestRedis;

use crate::service::{PATIENCE, TestService, eventually};

async fn service(redis: &TestRedis) -> TestService {
    service_with(redis, &[]).await
}

async fn service_with(redis: &TestRedis, settings: &[(&str, &str)]) -> TestService {
    let url = redis.url();
    let mut all = vec![
        ("TALLYHOUSE_PIPELINE", "true"),
        ("TALLYHOUSE_REDIS_URL", url.as_str()),
        ("TALLYHOUSE_PIPELINE_BACKOFF_MS_MIN", "10"),
        ("TALLYHOUSE_PIPELINE_BACKOFF_MS_MAX", "40"),
    ];
    all.extend(settings);
    TestService::with(&all).await
}

fn event(user: &str, seq: u64) -> Value {
    json!({"eventId": format!("{user}-{seq}"), "userId": user, "type": "order_placed", "payload": {"seq": seq}})
}

fn failing(user: &str, seq: u64) -> Value {
    let mut event = event(user, seq);
    event["payload"]["fail"] = json!(true);
    event
}

async fn processed(service: &TestService, id: &str) -> Value {
    let since = Instant::now();
    loop {
        let (status, body) = service.get(&format!("/pipeline/events/{id}")).await;
        assert_eq!(status, 200, "{id}: {body}");
        if body["processedAt"].is_u64() {
            return body;
        }
        assert!(since.elapsed() < PATIENCE, "{body}");
    }
}

fn hash(redis: &TestRedis, key: &str) -> HashMap<String, String> {
    redis.ask(&["HGETALL", key])
}

fn order(redis: &TestRedis, user: &str) -> Vec<u64> {
    redis.ask(&["LRANGE", &format!("order:{user}"), "0", "-1"])
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_taken_and_shown_as_the_contract_says() {
    let Some(redis) = TestRedis::start() else { return };
    let service = service(&redis).await;
    let first = event("ann", 1);
    let accepted = json!({"eventId": "ann-1", "status": "accepted"});
    assert_eq!(service.post("/pipeline/events", &first).await, (202, accepted));
    let again = json!({"eventId": "ann-1", "status": "duplicate"});
    assert_eq!(service.post("/pipeline/events", &first).await, (202, again), "without a time of its own");
    let mut other = first.clone();
    other["payload"]["a"] = json!(1);
    assert_eq!(service.post("/pipeline/events", &other).await.1["status"], "conflict");

    let (status, made) = service.post("/pipeline/events", &json!({"userId": "ann", "type": "x", "payload": {}})).await;
    assert_eq!((status, &made["status"]), (202, &json!("accepted")));
    let made = made["eventId"].as_str().unwrap().to_owned();
    assert_eq!(made.len(), 36);
    assert_eq!(processed(&service, &made).await["seq"], Value::Null);

    let several = json!({"events": [event("bob", 3), event("bob", 1), failing("bob", 2), event("bob", 3)]});
    let (status, body) = service.post("/pipeline/events", &several).await;
    let statuses: Vec<&str> =
        body["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
    assert_eq!((status, statuses), (202, vec!["accepted", "accepted", "accepted", "duplicate"]));

    let shown = processed(&service, "bob-3").await;
    let record = hash(&redis, "event:bob-3");
    assert_eq!(shown["processedAt"].to_string(), record["processedAt"]);
    let expected = json!({
        "eventId": "bob-3", "userId": "bob", "type": "order_placed", "seq": 3, "status": "processed", "attempts": 1,
        "processedAt": shown["processedAt"], "error": null,
    });
    assert_eq!(shown, expected);
    let failed = processed(&service, "bob-2").await;
    assert_eq!((&failed["status"], &failed["attempts"]), (&json!("failed"), &json!(3)));
    assert!(failed["error"].is_string());
    assert_eq!(order(&redis, "bob"), [1, 3]);
    assert_eq!(redis.ask::<Vec<String>>(&["LRANGE", "dlq:list", "0", "-1"]), ["bob-2"]);
    assert_eq!(hash(&redis, "dlq:bob-2")["attempts"], "3");
    assert_eq!(redis.ask::<u64>(&["EXISTS", "dedup:bob-1", "dedup:bob-2", "dedup:bob-3"]), 3);
    assert!(redis.ask::<Vec<String>>(&["KEYS", "inflight:*"]).is_empty());

    service.post("/pipeline/events", &event("cid", 5)).await;
    let since = Instant::now();
    let early = loop {
        let (_, early) = service.get("/pipeline/events/cid-5").await;
        if early["status"] == "buffered" || since.elapsed() > PATIENCE {
            break early;
        }
    };
    assert_eq!((&early["waitingForSeq"], &early["processedAt"]), (&json!(1), &Value::Null), "{early}");
    assert_eq!(service.get("/pipeline/events/unknown").await.0, 404);

    // They are events as any other.
    let (status, stored) = loop {
        let found = service.get("/events/bob-3").await;
        if found.0 == 200 || since.elapsed() > PATIENCE {
            break found;
        }
    };
    assert_eq!(status, 200);
    assert_eq!((&stored["user_id"], &stored["type"]), (&json!("bob"), &json!("order_placed")));
    service.assert_stored(6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_events_are_named_and_go_no_further() {
    let Some(redis) = TestRedis::start() else { return };
    let service = service(&redis).await;
    let fields = async |body: &Value| {
        let (status, answer) = service.post("/pipeline/events", body).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("VALIDATION_ERROR")), "{body} {answer}");
        let details = answer["error"]["details"].as_array().unwrap().clone();
        let mut fields: Vec<String> =
            details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned()).collect();
        fields.sort_unstable();
        fields
    };
    assert_eq!(fields(&json!({})).await, ["payload", "type", "userId"]);
    assert_eq!(fields(&json!([])).await, ["body"]);
    assert_eq!(fields(&json!({"events": []})).await, ["events"]);
    let with = |field: &str, value: Value| {
        let mut event = event("ann", 1);
        event[field] = value;
        event
    };
    for (field, value) in [
        ("eventId", json!("")),
        ("eventId", json!("x".repeat(129))),
        ("eventId", json!(7)),
        ("userId", json!("")),
        ("userId", json!(7)),
        ("type", json!("")),
        ("type", json!(null)),
        ("payload", json!(null)),
        ("payload", json!([1])),
        ("payload", json!("{}")),
        ("occurredAt", json!("yesterday")),
    ] {
        assert_eq!(fields(&with(field, value.clone())).await, [field], "{value}");
    }
    for seq in ["0", "-1", "1.0", "1.5", "\"1\"", "true", "null", "9007199254740992", "1e2"] {
        let body: Value =
            serde_json::from_str(&format!(r#"{{"eventId":"s","userId":"ann","type":"x","payload":{{"seq":{seq}}}}}"#))
                .unwrap();
        assert_eq!(fields(&body).await, ["payload.seq"], "{seq}");
    }
    let mixed = json!({"events": [event("ann", 1), with("userId", json!(7)), 5]});
    assert_eq!(fields(&mixed).await, ["events[1].userId", "events[2]"]);
    let (status, _) = service.post("/pipeline/events", &json!({"events": vec![event("ann", 1); 1_001]})).await;
    assert_eq!(status, 400);
    let malformed = service.http.post(format!("{}/pipeline/events", service.url));
    let malformed = malformed.header("content-type", "application/json").body("{").send().await.unwrap();
    assert_eq!(malformed.status(), 400);
    assert_eq!(service.get("/pipeline/events/ann-1").await.0, 404, "nothing of it went further");
    let extra = with("whatever", json!({"a": 1}));
    assert_eq!(service.post("/pipeline/events", &extra).await.0, 202);
    let max: Value =
        json!({"eventId": "m", "userId": "x".repeat(200), "type": "x", "payload": {"seq": 9_007_199_254_740_991_u64}});
    assert_eq!(service.post("/pipeline/events", &max).await.0, 202);
    assert!(redis.ask::<Vec<String>>(&["KEYS", "event:s*"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_over_its_limit_is_told_to_wait() {
    let Some(redis) = TestRedis::start() else { return };
    let service = service_with(&redis, &[("TALLYHOUSE_PIPELINE_USER_EVENTS_PER_SECOND", "5")]).await;
    let batch = |seqs: std::ops::RangeInclusive<u64>| json!({"events": seqs.map(|seq| event("ann", seq)).collect::<Vec<Value>>()});
    // Within one second, however slow the machine: until the first window is full within its second.
    let since = Instant::now();
    loop {
        let user = format!("u{}", since.elapsed().as_nanos());
        let begun = Instant::now();
        let mut events: Vec<Value> = (1..=7).map(|seq| event(&user, seq)).collect();
        events.push(event("other", 1));
        events.push(event(&user, 1));
        let (status, body) = service.post("/pipeline/events", &json!({"events": events})).await;
        assert_eq!(status, 202);
        let statuses: Vec<&str> =
            body["results"].as_array().unwrap().iter().map(|result| result["status"].as_str().unwrap()).collect();
        assert_eq!(
            statuses[..7],
            ["accepted", "accepted", "accepted", "accepted", "accepted", "rate_limited", "rate_limited"]
        );
        assert_eq!(statuses[8], "duplicate");
        assert_eq!(redis.ask::<u64>(&["ZCARD", &format!("rate:{user}")]), 5);
        let over =
            service.http.post(format!("{}/pipeline/events", service.url)).json(&event(&user, 6)).send().await.unwrap();
        let again = service.post("/pipeline/events", &event(&user, 2)).await;
        if begun.elapsed() > Duration::from_millis(900) {
            assert!(since.elapsed() < PATIENCE, "the machine is too slow");
            continue;
        }
        assert_eq!(over.status(), 429);
        assert!(over.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
        let over: Value = over.json().await.unwrap();
        assert_eq!(over["error"]["code"], "RATE_LIMITED");
        assert_eq!(again, (202, json!({"eventId": format!("{user}-2"), "status": "duplicate"})), "it is not charged");
        // The window slides: a second after the first five there is room.
        eventually("there is room again", || async {
            service.post("/pipeline/events", &event(&user, 6)).await.0 == 202
        })
        .await;
        break;
    }
    let (status, _) = service.post("/pipeline/events", &batch(1..=5)).await;
    assert_eq!(status, 202);
}

/// Events of several users in any order, a few of them failing.
fn shuffled(users: u64, per_user: u64, seed: u64) -> Vec<Value> {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut events: Vec<(u64, Value)> = Vec::new();
    for user in 0..users {
        for seq in 1..=per_user {
            let name = format!("u{user}");
            let event = if seq.is_multiple_of(50) { failing(&name, seq) } else { event(&name, seq) };
            // Mostly in order; a tenth anywhere among its neighbours.
            let place = seq * 1_000 + if random().is_multiple_of(10) { random() % 40_000 } else { 0 };
            events.push((place, event));
        }
    }
    events.sort_by_key(|(place, _)| *place);
    events.into_iter().map(|(_, event)| event).collect()
}

/// Sends some until they are taken, whatever happens to the service meanwhile.
async fn send(http: &reqwest::Client, url: &str, events: &[Value]) -> bool {
    let sent = http.post(format!("{url}/pipeline/events")).json(&json!({"events": events})).send().await;
    match sent {
        Ok(answer) if answer.status() == 202 => {
            let body: Value = answer.json().await.unwrap_or_default();
            let results = body["results"].as_array().cloned().unwrap_or_default();
            !results.is_empty() && results.iter().all(|result| result["status"] != "rate_limited")
        }
        _ => false,
    }
}

fn judge(redis: &TestRedis, users: u64, per_user: u64) {
    for user in 0..users {
        let expected: Vec<u64> = (1..=per_user).filter(|seq| seq % 50 != 0).collect();
        assert_eq!(order(redis, &format!("u{user}")), expected, "u{user}");
    }
    let mut dead: Vec<String> = redis.ask(&["LRANGE", "dlq:list", "0", "-1"]);
    dead.sort_unstable();
    let failing = (0..users).flat_map(|user| (1..=per_user / 50).map(move |n| format!("u{user}-{}", n * 50)));
    let mut expected: Vec<String> = failing.collect();
    expected.sort_unstable();
    assert_eq!(dead, expected);
    assert!(redis.ask::<Vec<String>>(&["KEYS", "inflight:*"]).is_empty());
    let keys: Vec<String> = redis.ask(&["KEYS", "event:*"]);
    assert_eq!(keys.len() as u64, users * per_user);
    for key in keys {
        let record = hash(redis, &key);
        let expected = if record["status"] == "failed" { "3" } else { "1" };
        assert_eq!(record["attempts"], expected, "{key}");
    }
}

/// All is processed.
async fn drained(service: &TestService, redis: &TestRedis, events: u64) {
    let since = Instant::now();
    loop {
        let (_, status) = service.get("/pipeline/status").await;
        let ended = redis.ask::<Vec<String>>(&["KEYS", "dedup:*"]).len() as u64;
        if status["waiting"] == 0 && ended == events {
            return;
        }
        assert!(since.elapsed() < PATIENCE, "{ended} of {events} events have ended: {status}\n{}", service.stderr());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_lose_repeat_and_reorder_nothing() {
    const USERS: u64 = 20;
    const PER_USER: u64 = 100;
    let Some(mut redis) = TestRedis::start() else { return };
    let limit = [("TALLYHOUSE_PIPELINE_USER_EVENTS_PER_SECOND", "100000")];
    let mut service = service_with(&redis, &limit).await;
    let events = shuffled(USERS, PER_USER, 7);
    let mut before: BTreeMap<String, HashMap<String, String>> = BTreeMap::new();
    for (round, some) in events.chunks(400).enumerate() {
        for batch in some.chunks(50) {
            while !send(&service.http, &service.url, batch).await {}
        }
        match round {
            0 | 3 => service.kill(),
            1 => {
                redis.kill();
                // It goes on without.
                assert!(send(&service.http, &service.url, &some[..50]).await);
                redis.restart();
            }
            _ => assert_eq!(service.stop(), Some(0)),
        }
        for (key, record) in &before {
            assert_eq!(hash(&redis, key), *record, "{key} was written again");
        }
        for key in redis.ask::<Vec<String>>(&["KEYS", "event:*"]) {
            before.insert(key.clone(), hash(&redis, &key));
        }
        if round != 1 {
            service.start().await;
        }
        // Whoever was not answered sends again.
        for batch in some.chunks(50) {
            while !send(&service.http, &service.url, batch).await {}
        }
    }
    drained(&service, &redis, USERS * PER_USER).await;
    judge(&redis, USERS, PER_USER);
    service.assert_stored(usize::try_from(USERS * PER_USER).unwrap()).await;
    // They have no campaign.
    assert_eq!(service.totals().await, ["2000", "0", "2000", "2000", "2000"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_events_are_taken_and_wait() {
    let Some(mut redis) = TestRedis::start() else { return };
    let service = service_with(&redis, &[("TALLYHOUSE_PIPELINE_USER_EVENTS_PER_SECOND", "1000")]).await;
    service.post("/pipeline/events", &event("ann", 1)).await;
    processed(&service, "ann-1").await;
    redis.kill();
    for seq in 2..=20 {
        assert_eq!(service.post("/pipeline/events", &event("ann", seq)).await.0, 202);
    }
    eventually("the service says so", || async {
        let (_, status) = service.get("/pipeline/status").await;
        status["redis"] == "away" && status["rateLimits"] == "memory"
    })
    .await;
    let (status, ready) = service.get("/readyz").await;
    assert_eq!(status, 200);
    assert!(ready.to_string().contains("REDIS_AWAY"), "{ready}");
    let (_, waiting) = service.get("/pipeline/events/ann-2").await;
    assert!(["pending", "in_flight"].contains(&waiting["status"].as_str().unwrap()), "{waiting}");
    redis.restart();
    assert_eq!(processed(&service, "ann-20").await["attempts"], 1);
    assert_eq!(order(&redis, "ann"), (1..=20).collect::<Vec<u64>>());
    assert!(service.stderr().contains("Redis is away"));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_redis_data_is_reported_and_restored() {
    let Some(redis) = TestRedis::start() else { return };
    let service = service(&redis).await;
    let events: Vec<Value> =
        (1..=20).map(|seq| if seq == 4 { failing("ann", seq) } else { event("ann", seq) }).collect();
    service.post("/pipeline/events", &json!({"events": events})).await;
    processed(&service, "ann-20").await;
    drained(&service, &redis, 20).await;
    let (record, before) = (hash(&redis, "event:ann-7"), order(&redis, "ann"));
    let _: String = redis.ask(&["FLUSHALL"]);
    eventually("the service says so", || async { service.get("/pipeline/status").await.1["redis"] == "incomplete" })
        .await;
    assert!(service.get("/readyz").await.1.to_string().contains("REDIS_INCOMPLETE"));
    assert!(service.stderr().contains("Redis has lost records"));
    assert_eq!(processed(&service, "ann-7").await["processedAt"].to_string(), record["processedAt"]);
    let (status, rebuilt) = service.post("/pipeline/rebuild", &json!({})).await;
    assert_eq!((status, &rebuilt["records"], &rebuilt["restored"]), (200, &json!(20), &json!(20)));
    assert_eq!((hash(&redis, "event:ann-7"), order(&redis, "ann")), (record, before));
    assert_eq!(redis.ask::<Vec<String>>(&["LRANGE", "dlq:list", "0", "-1"]), ["ann-4"]);
    assert_eq!(service.get("/pipeline/status").await.1["redis"], "up");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_time_survives_a_restart() {
    let Some(redis) = TestRedis::start() else { return };
    let mut service = service(&redis).await;
    service.post("/pipeline/events", &event("ann", 1)).await;
    service.kill();
    service.start().await;
    let again = json!({"eventId": "ann-1", "status": "duplicate"});
    assert_eq!(service.post("/pipeline/events", &event("ann", 1)).await, (202, again));
    let mut other = event("ann", 1);
    other["type"] = json!("another");
    assert_eq!(service.post("/pipeline/events", &other).await.1["status"], "conflict");
    processed(&service, "ann-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_is_off_unless_it_is_asked_for() {
    let service = TestService::new().await;
    assert_eq!(service.post("/pipeline/events", &event("ann", 1)).await.0, 404);
    assert_eq!(service.get("/openapi.json").await.1["paths"]["/pipeline/events"], Value::Null);
}

/// The figure: `make pipeline-figure`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone, on a release build"]
async fn fifty_thousand_events_take_30_seconds_at_most() {
    const USERS: u64 = 1_000;
    const PER_USER: u64 = 50;
    let Some(redis) = TestRedis::start() else { return };
    let mut service = service(&redis).await;
    let events = shuffled(USERS, PER_USER, 50);
    let since = Instant::now();
    let half = events.len() / 2;
    post_all(&service, &events[..half]).await;
    assert_eq!(service.stop(), Some(0));
    let stopped = since.elapsed();
    service.start().await;
    let started = since.elapsed();
    post_all(&service, &events[half..]).await;
    let posted = since.elapsed();
    eventually("everything is processed", || async {
        service.get("/pipeline/status").await.1["waiting"] == 0
            && redis.ask::<u64>(&[
                "HGET",
                "tallyhouse:deliveries",
                &redis.ask::<Vec<String>>(&["HKEYS", "tallyhouse:deliveries"])[0],
            ]) >= USERS * PER_USER
    })
    .await;
    let took = since.elapsed();
    println!(
        "{} events: stopped after {stopped:.1?}, back after {started:.1?}, posted after {posted:.1?}, processed after {took:.1?}",
        events.len()
    );
    judge(&redis, USERS, PER_USER);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// Posts by 16 clients in batches of 50, each user's events spread over them.
async fn post_all(service: &TestService, events: &[Value]) {
    let batches: std::sync::Arc<Vec<Vec<Value>>> =
        std::sync::Arc::new(events.chunks(50).map(<[Value]>::to_vec).collect());
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..16 {
        let (batches, next) = (std::sync::Arc::clone(&batches), std::sync::Arc::clone(&next));
        let (http, url) = (service.http.clone(), service.url.clone());
        clients.push(tokio::spawn(async move {
            while let Some(batch) = batches.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                while !send(&http, &url, batch).await {}
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}
