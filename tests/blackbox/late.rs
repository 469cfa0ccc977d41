//! Late events: their ids have left memory, never were in it, or have left the id ledger.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::json;
use tallyhouse::transport::proto::{self, IngestBatchRequest, Verdict};

use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// The last hour that had begun ten minutes ago, whenever the tests end: no
/// minute of it that is used lies ahead.
static LAST_HOUR: LazyLock<i64> = LazyLock::new(|| (now_millis() - 10 * MINUTE) / HOUR * HOUR);

/// A service that holds 4,000 ids in memory, with 12,000 stored over six hours.
async fn full_service(settings: &[(&str, &str)]) -> TestService {
    let small = [("TALLYHOUSE_INDEX_IDS_MAX", "4000"), ("TALLYHOUSE_BATCH_EVENTS_MAX", "1000")];
    let service = TestService::with(&[&small, settings].concat()).await;
    for hour in (0..6).rev() {
        for part in 0..2 {
            let counts = service.store(stored(hour, part)).await.counts.unwrap();
            assert_eq!(counts.accepted + counts.duplicate, 1_000, "{counts:?}");
        }
    }
    service
}

/// A thousand clicks within one minute of an hour ago.
fn stored(hours_ago: i64, part: i64) -> Vec<proto::Event> {
    let minute = *LAST_HOUR - hours_ago * HOUR + part * 7 * MINUTE;
    clicks(&format!("stored-{hours_ago}-{part}"), 1_000, minute + 30_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_count_once_whoever_knows_them() {
    let service = full_service(&[]).await;
    // Old hours again and again, in turns, each time with new events between those
    // that are stored.
    for round in 0..4 {
        for hour in [5, 3, 4, 2] {
            let mut events = stored(hour, round / 2);
            let minute = events[0].occurred_at.unwrap().seconds * 1_000;
            events.truncate(500);
            events.extend(clicks(&format!("new-{hour}-{}", round / 2), 300, minute + 900));
            let counts = service.store(events).await.counts.unwrap();
            let new = if round % 2 == 0 { 300 } else { 0 };
            assert_eq!((counts.accepted, counts.duplicate), (new, 800 - new), "round {round}, hour {hour}: {counts:?}");
        }
    }
    // History of which nothing is stored, each event in another minute.
    let history: Vec<_> =
        (0..900).map(|n| click(&format!("history-{n}"), now_millis() - 30 * 24 * HOUR - n * MINUTE)).collect();
    assert_eq!(service.store(history.clone()).await.counts.unwrap().accepted, 900);
    assert_eq!(service.store(history.clone()).await.counts.unwrap().duplicate, 900);
    let mut changed = history[17].clone();
    changed.source = "another".to_owned();
    assert_eq!(service.store(vec![changed]).await.results[0].verdict(), Verdict::Conflict);
    service.assert_counted(12_000 + 8 * 300 + 900).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_events_of_a_minute_too_large_for_memory_count_once() {
    let service = full_service(&[]).await;
    let minute = *LAST_HOUR - 8 * HOUR;
    for part in 0..3 {
        let counts = service.store(clicks(&format!("large-{part}"), 1_000, minute)).await.counts.unwrap();
        assert_eq!(counts.accepted, 1_000, "{counts:?}");
    }
    let longest = clicks(&"long-".repeat(25)[..123], 1_000, minute);
    assert!(longest.iter().any(|event| event.event_id.len() == 127), "{}", longest[999].event_id);
    let counts = service.store(longest.clone()).await.counts.unwrap();
    assert_eq!(counts.accepted, 1_000, "{counts:?}");
    let counts = service.store(longest).await.counts.unwrap();
    assert_eq!(counts.duplicate, 1_000, "{counts:?}");
    service.assert_counted(12_000 + 4_000).await;
}

/// A service whose ledger keeps 1,000 ids: those of events older than 19 days have been let go.
async fn with_floor(settings: &[(&str, &str)]) -> (TestService, Vec<proto::Event>) {
    let few = [
        ("TALLYHOUSE_LEDGER_IDS_MAX", "1000"),
        ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50"),
        ("TALLYHOUSE_LOOK_UP_WAIT_MS_MAX", "300"),
    ];
    let service = TestService::with(&[&few, settings].concat()).await;
    let old = clicks("old", 1_500, now_millis() - 20 * 24 * HOUR);
    service.store(old.clone()).await;
    service.store(clicks("newer", 600, now_millis() - 24 * HOUR)).await;
    eventually("the old ids are let go", || async {
        let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "tallyhouse_ledger_ids 600")
    })
    .await;
    (service, old)
}

#[tokio::test(flavor = "multi_thread")]
async fn events_beyond_the_ledgers_horizon_are_looked_up() {
    let (service, old) = with_floor(&[]).await;
    let mut events = old.clone();
    events.truncate(700);
    events.extend(clicks("late", 300, now_millis() - 20 * 24 * HOUR));
    let counts = service.store(events.clone()).await.counts.unwrap();
    assert_eq!((counts.accepted, counts.duplicate), (300, 700), "{counts:?}");
    let counts = service.store(events).await.counts.unwrap();
    assert_eq!(counts.duplicate, 1_000, "{counts:?}");
    let mut changed = old[1_100].clone();
    changed.source = "another".to_owned();
    assert_eq!(service.store(vec![changed]).await.results[0].verdict(), Verdict::Conflict);
    service.assert_counted(2_100 + 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_late_events_are_undecided_while_clickhouse_hangs() {
    let (service, _) = with_floor(&[]).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let (late, fresh) = (click("late", now_millis() - 40 * 24 * HOUR), click("fresh", now_millis()));
    let mut ingest = service.ingest().await;
    let begun = Instant::now();
    let request = IngestBatchRequest { events: vec![late.clone(), fresh], durability: 0, ..Default::default() };
    let answer = ingest.ingest_batch(request).await.unwrap().into_inner();
    assert!(begun.elapsed() < Duration::from_secs(10), "the wait has its bound");
    assert_eq!(answer.counts.unwrap().accepted, 1);
    assert_eq!(answer.results.len(), 1);
    assert_eq!((answer.results[0].event_id.as_str(), answer.results[0].verdict()), ("late", Verdict::Undecided));

    let body = json!({
        "event_id": "late", "type": "click", "campaign_id": "camp_1", "creative_id": "creative_1", "source": "test",
        "user_id": "user_1", "occurred_at": "2026-09-01T00:00:00Z",
    });
    let answer = service.http.post(format!("{}/events", service.url)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let body: serde_json::Value = answer.json().await.unwrap();
    assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{body}");

    signal(engine, "CONT");
    assert_eq!(service.store(vec![late]).await.counts.unwrap().accepted, 1, "sent again, it is taken");
    service.assert_counted(2_100 + 2).await;
}
