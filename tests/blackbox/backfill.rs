//! Scattered backfill: events of hundreds of days in small batches, which ClickHouse writes as a part for each day.

use std::time::{Duration, Instant};

use tallyhouse::transport::proto::{self, IngestBatchRequest};

use crate::events::{click, now_millis, window};
use crate::service::{PATIENCE, TestService};

const HOUR: i64 = 60 * 60_000;
const DAY: i64 = 24 * HOUR;
/// Events in a batch.
const BATCH: usize = 50;

/// So many batches, whose events are scattered over so many days.
fn scattered(batches: usize, days: i64) -> Vec<Vec<proto::Event>> {
    let now = now_millis();
    let event = |n: usize| {
        let day = i64::try_from(n).unwrap() * 7_919 % days;
        click(&format!("old-{n}"), now - day * DAY)
    };
    (0..batches).map(|batch| (batch * BATCH..(batch + 1) * BATCH).map(event).collect()).collect()
}

async fn send(service: &TestService, events: Vec<proto::Event>) {
    let request = IngestBatchRequest { events, ..Default::default() };
    let counts = service.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
    assert_eq!(counts.rejected + counts.undecided, 0, "{counts:?}");
}

/// Sends a fresh event, and returns how long it takes until an answer counts it.
async fn freshness(service: &TestService, name: &str) -> Duration {
    let mut event = click(name, now_millis());
    name.clone_into(&mut event.campaign_id);
    let end = (now_millis() / HOUR + 1) * HOUR;
    let request = proto::GetCampaignStatsRequest {
        campaign_id: name.to_owned(),
        window: window(end - 2 * HOUR, end),
        granularity: proto::Granularity::Hour.into(),
    };
    send(service, vec![event]).await;
    let (sent, mut query) = (Instant::now(), service.query().await);
    while query.get_campaign_stats(request.clone()).await.unwrap().into_inner().series.is_empty() {
        assert!(sent.elapsed() < PATIENCE, "{name} is not counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sent.elapsed()
}

/// Events that ClickHouse does not have yet.
async fn unstored(service: &TestService) -> u64 {
    service.get("/readyz").await.1["segments"]["rows"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_events_count_within_2_seconds_beside_scattered_backfill() {
    let service = TestService::new().await;
    let batches = scattered(200, 725);
    let sent: usize = batches.iter().map(Vec::len).sum();
    for batch in batches {
        send(&service, batch).await;
    }
    assert!(unstored(&service).await > 5_000, "the backfill is under way");
    let mut times = Vec::new();
    while unstored(&service).await > 0 {
        times.push(freshness(&service, &format!("fresh-{}", times.len())).await);
    }
    times.sort_unstable();
    assert!(times.len() >= 5, "the backfill took a while: {times:?}");
    // Other processes share the machine: one answer may be late, most may not.
    assert!(times[times.len() / 2] < Duration::from_secs(2), "{times:?}");
    service.assert_counted(sent + times.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scattered_events_count_once_through_crashes() {
    let mut service = TestService::new().await;
    let batches = scattered(60, 300);
    for batch in &batches {
        send(&service, batch.clone()).await;
    }
    assert!(unstored(&service).await > 0, "an insert is under way");
    service.kill();
    service.start().await;
    freshness(&service, "fresh").await;
    for batch in &batches {
        send(&service, batch.clone()).await; // All of them are duplicates.
    }
    service.kill();
    service.start().await;
    service.assert_counted(60 * BATCH + 1).await;
}
