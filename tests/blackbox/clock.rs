//! A wall clock that jumps: nothing is refused or forgotten by a time that is in doubt. The clock is set as
//! the chaos tests set it, by a library that is preloaded into a second service.

#[path = "../chaos/clock.rs"]
pub(crate) mod set_clock;

use serde_json::{Value, json};
use set_clock::Clock;
use tallyhouse::transport::proto::{self, IngestBatchRequest};
use tonic::Code;

use crate::analytics::event;
use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually};

const DAY_SECONDS: i64 = 86_400;

/// A service whose clock can be set, beside a service that holds ClickHouse.
struct WithClock {
    first: TestService,
    service: TestService,
    clock: Clock,
    _dir: tempfile::TempDir,
}

impl WithClock {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let first = TestService::new().await;
        let dir = tempfile::tempdir().unwrap();
        let library = set_clock::build(dir.path()).unwrap();
        let clock = Clock::at(&library, dir.path().join("clock"), now_millis()).unwrap();
        let preload = [("LD_PRELOAD", clock.library.to_str().unwrap()), ("CHAOS_CLOCK", clock.path.to_str().unwrap())];
        let service = first.second(&[settings, &preload[..]].concat()).await;
        Self { first, service, clock, _dir: dir }
    }

    async fn send(&self, events: Vec<proto::Event>) -> Result<proto::VerdictCounts, tonic::Status> {
        let request = IngestBatchRequest { events, ..Default::default() };
        let answer = self.service.ingest().await.ingest_batch(request).await;
        answer.map(|answer| answer.into_inner().counts.unwrap())
    }

    async fn post_once(&self, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1/events", self.service.url);
        let answer = self.first.http.post(url).header("Idempotency-Key", "once").json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn ready(&self) -> (u16, Value) {
        let answer = self.first.http.get(format!("{}/readyz", self.service.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_jump_heals_when_it_is_put_right() {
    let with = WithClock::start(&[]).await;
    assert_eq!(with.send(clicks("before", 10, now_millis())).await.unwrap().accepted, 10);
    let body = json!({ "events": [event("keyed")] });
    let first = with.post_once(&body).await;
    assert_eq!(first.0, 202, "{first:?}");

    for days in [800, -300] {
        with.clock.step(days * DAY_SECONDS).unwrap();
        let refused = with.send(vec![click("during", now_millis())]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert!(refused.message().contains("clock_step_seconds_max"), "{refused}");
        // Keys are neither forgotten nor answered by such a time.
        let (status, answer) = with.post_once(&body).await;
        assert_eq!((status, &answer["error"]["code"]), (503, &json!("UNAVAILABLE")), "{answer}");
        let (status, ready) = with.ready().await;
        assert_eq!((status, &ready["reasons"][0]["code"]), (503, &json!("CLOCK_IMPLAUSIBLE")), "{ready}");

        with.clock.step(-days * DAY_SECONDS).unwrap();
        let after = with.send(clicks(&format!("after-{days}"), 10, now_millis())).await.unwrap();
        assert_eq!(after.accepted, 10, "{days}");
        assert_eq!(with.post_once(&body).await, first, "{days}: the key still has its answer");
        assert_eq!(with.ready().await.0, 200);
    }
    eventually("all are stored", || async { with.first.sql("SELECT count() FROM events").await == "31" }).await;
    let ahead = with.first.sql("SELECT max(arrival) FROM events").await.parse::<i64>().unwrap() / 1_000 - now_millis();
    assert!(ahead < 60_000, "arrivals are {ahead} ms ahead");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_keeps_its_pace_is_confirmed() {
    let with = WithClock::start(&[("TALLYHOUSE_CLOCK_CONFIRM_SECONDS", "2")]).await;
    let ahead = 3_600;
    with.clock.step(ahead).unwrap();
    assert_eq!(with.send(vec![click("early", now_millis())]).await.unwrap_err().code(), Code::Unavailable);
    // Nobody asks for the time meanwhile but the probe.
    eventually("confirmed", || async { with.ready().await.0 == 200 }).await;
    let then = now_millis() + ahead * 1_000;
    assert_eq!(with.send(vec![click("then", then)]).await.unwrap().accepted, 1);
    // The time from before is believed at once.
    with.clock.step(-ahead).unwrap();
    let counts = with.send(vec![click("now", now_millis()), click("future", then)]).await.unwrap();
    assert_eq!((counts.accepted, counts.rejected), (1, 1));
    eventually("said", || async { with.service.stderr_of_run().contains("the clock is believed again") }).await;
}
