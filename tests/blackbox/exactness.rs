//! Every event id is counted exactly once, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tallyhouse::transport::proto::{self, IngestRequest, Verdict};
use tokio::sync::Barrier;
use tokio_stream::StreamExt as _;

use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

/// The verdicts other than accepted, by event id.
fn verdicts(results: &[proto::EventResult]) -> Vec<(&str, Verdict)> {
    results.iter().map(|result| (result.event_id.as_str(), result.verdict())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_sent_by_32_clients_at_once_counts_once() {
    let service = Arc::new(TestService::new().await);
    let (rounds, barrier) = (20, Arc::new(Barrier::new(32)));
    let now = now_millis();
    let clients: Vec<_> = (0..32)
        .map(|client| {
            let (service, barrier) = (Arc::clone(&service), Arc::clone(&barrier));
            tokio::spawn(async move {
                let mut ingest = service.ingest().await;
                let mut accepted = 0;
                for round in 0..rounds {
                    let id = format!("round-{round}");
                    barrier.wait().await;
                    if client % 2 == 0 {
                        let events = vec![click(&id, now)];
                        let request = proto::IngestBatchRequest { events, durability: 0, ..Default::default() };
                        accepted += ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap().accepted;
                    } else {
                        let time =
                            time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(now) * 1_000_000).unwrap();
                        let event = json!({
                            "event_id": id, "type": "click", "campaign_id": "camp_1", "creative_id": "creative_1",
                            "source": "test", "user_id": "user_1",
                            "occurred_at": time.format(&time::format_description::well_known::Rfc3339).unwrap(),
                        });
                        let (status, body) = service.post("/events", &event).await;
                        assert_eq!(status, 202, "{body}");
                        // The same event through either door is the same event.
                        assert!(body["status"] == "accepted" || body["status"] == "duplicate", "{body}");
                        accepted += u32::from(body["status"] == "accepted");
                    }
                }
                accepted
            })
        })
        .collect();
    let mut accepted = 0;
    for client in clients {
        accepted += client.await.unwrap();
    }
    assert_eq!(accepted, rounds, "each id is accepted by exactly one caller");
    service.assert_counted(rounds as usize).await;
}

/// Streams batches until the connection breaks; returns the ids that were
/// acknowledged.
async fn stream_until_cut(service: &TestService, batches: Vec<Vec<proto::Event>>) -> Vec<String> {
    let requests: Vec<IngestRequest> = batches
        .iter()
        .zip(0..)
        .map(|(events, sequence)| IngestRequest { sequence, events: events.clone(), durability: 0 })
        .collect();
    let mut acknowledged = Vec::new();
    let stream = service.ingest().await.ingest(tokio_stream::iter(requests)).await;
    let Ok(stream) = stream else { return acknowledged };
    let mut responses = stream.into_inner();
    while let Some(Ok(response)) = responses.next().await {
        let events = &batches[usize::try_from(response.sequence).unwrap()];
        acknowledged.extend(events.iter().map(|event| event.event_id.clone()));
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_service_in_mid_stream_loses_nothing_acknowledged() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut service = TestService::new().await;
    let all = clicks("killed", 60_000, now_millis());
    let batches: Vec<Vec<proto::Event>> = all.chunks(100).map(<[_]>::to_vec).collect();
    let mut acknowledged = std::collections::HashSet::new();
    for _ in 0..3 {
        let pid = service.pid();
        let wait = Duration::from_millis(random.random_range(5..120));
        let (acks, ()) = tokio::join!(stream_until_cut(&service, batches.clone()), async {
            // The moment is the point of the test; nothing is awaited by it.
            tokio::time::sleep(wait).await;
            signal(pid, "KILL");
        });
        acknowledged.extend(acks);
        service.kill();
        service.start().await;
    }
    let ids: Vec<String> = acknowledged.iter().cloned().collect();
    println!("{} acknowledged before the last crash", ids.len());
    // What was acknowledged is known to the new run at once.
    let known: Vec<proto::Event> = all.iter().filter(|event| acknowledged.contains(&event.event_id)).cloned().collect();
    for events in known.chunks(5_000) {
        let counts = service.store(events.to_vec()).await.counts.unwrap();
        assert_eq!(counts.duplicate as usize, events.len(), "{counts:?}");
    }
    // And sending everything again completes the count, without doubling it.
    stream_until_cut(&service, batches).await;
    service.assert_counted(all.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_clickhouse_in_mid_insert_counts_nothing_twice() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let service = TestService::with(&[("TALLYHOUSE_SEGMENT_LINGER_MS", "20")]).await;
    let month_ago = now_millis() - 31 * 86_400_000;
    let mut sent = 0;
    for round in 0..6 {
        let mut events = clicks(&format!("now-{round}"), 20_000, now_millis());
        events.extend(clicks(&format!("then-{round}"), 20_000, month_ago));
        sent += events.len();
        for batch in events.chunks(10_000) {
            let request = proto::IngestBatchRequest { events: batch.to_vec(), durability: 0, ..Default::default() };
            let counts = service.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
            assert_eq!(counts.accepted, 10_000, "ingest goes on");
        }
        let engine = service.engine_pid();
        tokio::time::sleep(Duration::from_millis(random.random_range(0..150))).await;
        signal(engine, "KILL");
        eventually("a new engine", || async { engine_answers(&service, engine).await }).await;
    }
    service.assert_counted(sent).await;
}

/// Whether another engine than the given one answers.
async fn engine_answers(service: &TestService, before: u32) -> bool {
    let ping = service.http.get(format!("{}/ping", service.clickhouse_url)).send().await;
    ping.is_ok_and(|answer| answer.status() == 200) && service.engine_pid() != before
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_of_the_log_is_cut() {
    let mut service = TestService::new().await;
    let engine = service.engine_pid();
    signal(engine, "STOP"); // Nothing leaves the log.
    let events = clicks("torn", 500, now_millis());
    let request = proto::IngestBatchRequest { events: events.clone(), durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    service.kill();
    signal(engine, "KILL");
    let mut segments = log_files(&service, "open").into_iter().chain(log_files(&service, "sealed"));
    // (An empty one was made ahead.)
    let torn = segments.find(|path| path.metadata().unwrap().len() > 0).expect("a segment");
    // Half a frame, as a write that a power failure cut short leaves it.
    let mut bytes = std::fs::read(&torn).unwrap();
    bytes.extend_from_slice(&[200, 0, 0, 0, 1, 2, 3, 4, 5]);
    let open = torn.with_extension("open");
    std::fs::remove_file(&torn).unwrap();
    std::fs::write(&open, &bytes).unwrap();
    service.start().await;
    let counts = service.store(events).await.counts.unwrap();
    assert_eq!(counts.duplicate, 500, "{counts:?}");
    service.assert_counted(500).await;
    assert_eq!(log_files(&service, "cut").len(), 1, "what was cut is kept for a person to look at");
}

fn log_files(service: &TestService, extension: &str) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(service.log_dir()).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_being_away_costs_nothing_but_freshness() {
    let service = TestService::new().await;
    service.store(clicks("before", 100, now_millis())).await;
    let engine = service.engine_pid();
    signal(engine, "STOP");
    let mut ingest = service.ingest().await;
    for round in 0..20 {
        let events = clicks(&format!("away-{round}"), 1_000, now_millis());
        let request = proto::IngestBatchRequest { events, durability: 0, ..Default::default() };
        let counts = ingest.ingest_batch(request.clone()).await.unwrap().into_inner().counts.unwrap();
        assert_eq!(counts.accepted, 1_000);
        let counts = ingest.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
        assert_eq!(counts.duplicate, 1_000, "and deduplication goes on");
    }
    signal(engine, "CONT");
    service.assert_counted(100 + 20 * 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_id_has_left_memory_is_still_a_duplicate() {
    let service =
        TestService::with(&[("TALLYHOUSE_INDEX_IDS_MAX", "2000"), ("TALLYHOUSE_BATCH_EVENTS_MAX", "500")]).await;
    let hour_ago = now_millis() - 3_600_000;
    let old = clicks("old", 500, hour_ago);
    service.store(old.clone()).await;
    // Newer minutes push the old ids out.
    for minute in (0..30).rev() {
        // The index may be full for a moment, until it has been swept.
        let counts = service.store(clicks(&format!("new-{minute}"), 400, now_millis() - minute * 60_000)).await.counts;
        let counts = counts.unwrap();
        assert_eq!(counts.accepted + counts.duplicate, 400, "{counts:?}");
    }
    let counts = service.store(old.clone()).await.counts.unwrap();
    assert_eq!(counts.duplicate, 500, "{counts:?}");
    let mut changed = old[7].clone();
    changed.source = "another".to_owned();
    let answer = service.store(vec![changed]).await;
    assert_eq!(verdicts(&answer.results), [("old-7", Verdict::Conflict)]);
    // Late events of which nobody has heard are taken, once.
    let late = clicks("late", 300, hour_ago - 60_000);
    assert_eq!(service.store(late.clone()).await.counts.unwrap().accepted, 300);
    assert_eq!(service.store(late).await.counts.unwrap().duplicate, 300);
    service.assert_counted(500 + 30 * 400 + 300).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_minutes_last_second_are_known_after_eviction() {
    let service =
        TestService::with(&[("TALLYHOUSE_INDEX_IDS_MAX", "1000"), ("TALLYHOUSE_BATCH_EVENTS_MAX", "250")]).await;
    // Alone in its month, and so in its part: ClickHouse chooses parts by
    // their first and last time.
    let long_ago = now_millis() - 70 * 86_400_000;
    let last = click("last", long_ago - long_ago.rem_euclid(60_000) + 59_998);
    service.store(vec![last.clone()]).await;
    for minute in (0..10).rev() {
        service.store(clicks(&format!("new-{minute}"), 200, now_millis() - minute * 60_000)).await;
    }
    assert_eq!(service.store(vec![last]).await.counts.unwrap().duplicate, 1);
    service.assert_counted(1 + 10 * 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_with_another_payload_is_a_conflict_and_the_first_stays() {
    let mut service = TestService::new().await;
    let now = now_millis();
    let first = click("twice", now);
    let changes: [fn(&mut proto::Event); 5] = [
        |event| event.campaign_id = "camp_2".to_owned(),
        |event| event.r#type = "impression".to_owned(),
        |event| event.occurred_at.as_mut().unwrap().seconds -= 3_600,
        |event| event.properties = r#"{"price":1}"#.to_owned(),
        |event| event.seq = 9,
    ];
    // Also within one batch.
    let mut batch = vec![first.clone(), first.clone()];
    batch.extend(changes.iter().map(|change| changed(&first, *change)));
    let answer = service.store(batch.clone()).await;
    let counts = answer.counts.unwrap();
    assert_eq!((counts.accepted, counts.duplicate, counts.conflict), (1, 1, 5), "{counts:?}");
    // And after a restart, from what ClickHouse has.
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    let counts = service.store(batch).await.counts.unwrap();
    assert_eq!((counts.accepted, counts.duplicate, counts.conflict), (0, 2, 5), "{counts:?}");
    service.assert_counted(1).await;
    assert_eq!(service.sql("SELECT campaign_id FROM events").await, "camp_1");
}

fn changed(event: &proto::Event, change: fn(&mut proto::Event)) -> proto::Event {
    let mut event = event.clone();
    change(&mut event);
    event
}
