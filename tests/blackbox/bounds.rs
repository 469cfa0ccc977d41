//! What is under way at a time is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallyhouse::transport::proto::{self, IngestBatchRequest};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

const DAY: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread")]
async fn bytes_beyond_the_logs_bound_are_refused() {
    let service = TestService::with(&[
        ("TALLYHOUSE_INGEST_BYTES_IN_FLIGHT_MAX", "1048576"),
        ("TALLYHOUSE_INGEST_WAIT_MS_MAX", "50"),
        ("TALLYHOUSE_LEDGER_IDS_MAX", "1000"),
        ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50"),
        ("TALLYHOUSE_BATCH_EVENTS_MAX", "250"),
    ])
    .await;
    let now = now_millis();
    // More than the ledger holds, so that older events must be looked up.
    for minute in 0..5 {
        service.store(clicks(&format!("old-{minute}"), 250, now - 20 * DAY + minute * 60_000)).await;
    }
    // Half of what it holds stays of the days before.
    for minute in 0..3 {
        service.store(clicks(&format!("newer-{minute}"), 200, now - DAY + minute * 60_000)).await;
    }
    eventually("old ids are dropped", || async {
        let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
        metrics.lines().any(|line| line == "tallyhouse_ledger_ids 600")
    })
    .await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    // A batch that takes all the room, and keeps it while ClickHouse does not answer.
    let mut late = clicks("late", 100, now - 40 * DAY);
    late.iter_mut().for_each(|event| event.properties = format!("{{\"x\":\"{}\"}}", "y".repeat(12_000)));
    let mut ingest = service.ingest().await;
    let waiting = tokio::spawn(async move {
        ingest.ingest_batch(IngestBatchRequest { events: late, durability: 0, ..Default::default() }).await
    });
    let probe = IngestBatchRequest { events: vec![click("probe", now)], durability: 0, ..Default::default() };
    let refusal = std::sync::Mutex::new(None);
    eventually("a refusal", || async {
        let refused = service.ingest().await.ingest_batch(probe.clone()).await.err();
        let is_refused = refused.is_some();
        *refusal.lock().unwrap() = refused;
        is_refused
    })
    .await;
    let refusal: tonic::Status = refusal.into_inner().unwrap().unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal}");
    assert!(refusal.message().contains("1048576 bytes"), "{refusal}");
    assert!(refusal.get_error_details().retry_info().unwrap().retry_delay.is_some());
    let is_told = async || service.get("/readyz").await.1.to_string().contains("INGEST_BUFFER_FULL");
    assert!(is_told().await, "the reason lasts for ten seconds");
    signal(engine, "CONT");
    let counts = waiting.await.unwrap().unwrap().into_inner().counts.unwrap();
    assert_eq!(counts.accepted, 100, "{counts:?}");
    eventually("the reason is over", || async { !is_told().await }).await;
    service.store(probe.events).await;
    service.assert_counted(5 * 250 + 3 * 200 + 100 + 1).await;
}

/// The most queries of the service's that ClickHouse was seen to work on at a
/// time, while 16 callers ask all the time; but for one look in ten, since a
/// query is still listed for a moment when its answer is out.
async fn most_queries_at_a_time(queries_in_flight_max: &str) -> u32 {
    let service = Arc::new(TestService::with(&[("TALLYHOUSE_QUERIES_IN_FLIGHT_MAX", queries_in_flight_max)]).await);
    for part in 0..5 {
        service.store(clicks(&format!("part-{part}"), 10_000, now_millis())).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let (service, is_over) = (Arc::clone(&service), Arc::clone(&is_over));
            tokio::spawn(async move {
                let mut query = service.query().await;
                // Lists are not cached; this one reads everything to find nothing.
                let request = proto::ListEventsRequest { user_id: "nobody".to_owned(), ..Default::default() };
                while !is_over.load(Ordering::Relaxed) {
                    query.list_events(request.clone()).await.unwrap();
                }
            })
        })
        .collect();
    let mut seen_at_a_time: Vec<u32> = Vec::new();
    for _ in 0..200 {
        let seen = service.sql("SELECT count() FROM system.processes WHERE query LIKE 'SELECT event_id, type%'").await;
        seen_at_a_time.push(seen.parse().unwrap());
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    seen_at_a_time.sort_unstable();
    seen_at_a_time[seen_at_a_time.len() * 9 / 10]
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_queries_than_allowed_are_in_clickhouse_at_a_time() {
    assert_eq!(most_queries_at_a_time("1").await, 1, "all wait for one");
    let most = most_queries_at_a_time("4").await;
    assert!((2..=4).contains(&most), "{most} of 4");
}
