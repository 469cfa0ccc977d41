//! `DURABILITY_STORED` waits for the segments of its own events, and for no others.

use tallyhouse::transport::proto::{self, Durability, IngestBatchRequest, IngestBatchResponse};
use tallyhouse::transport::proto::{ListSegmentsRequest, RetryParkedSegmentsRequest, SegmentState};
use tonic::Code;

use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually};

/// Segments that share a tag in the index are so many apart.
const TAGS: usize = 63;

async fn send(
    service: &TestService,
    events: Vec<proto::Event>,
    durability: Durability,
) -> Result<IngestBatchResponse, tonic::Status> {
    let request = IngestBatchRequest { events, durability: durability.into(), ..Default::default() };
    service.ingest().await.ingest_batch(request).await.map(tonic::Response::into_inner)
}

/// Stores events, each in a segment of its own, and returns them.
async fn store_each(service: &TestService, name: &str, events: usize) -> Vec<proto::Event> {
    let events = clicks(name, events, now_millis());
    for event in &events {
        let stored = send(service, vec![event.clone()], Durability::Stored).await;
        assert!(stored.is_ok(), "{}: {stored:?}", event.event_id);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn only_calls_with_parked_events_fail_for_stored() {
    let service = TestService::with(&[("TALLYHOUSE_SEGMENT_LINGER_MS", "1")]).await;
    let at = now_millis();
    let before = store_each(&service, "before", TAGS + 2).await;

    // A table that cannot take the rows, until it is mended.
    service.sql("ALTER TABLE events RENAME COLUMN seq TO seq_lost").await;
    let parked = clicks("parked", 50, at);
    let refused = send(&service, parked.clone(), Durability::Stored).await.unwrap_err();
    service.sql("ALTER TABLE events RENAME COLUMN seq_lost TO seq").await;
    let mut segments = proto::segment_service_client::SegmentServiceClient::new(service.channel().await);
    let listed = segments.list_segments(ListSegmentsRequest {}).await.unwrap().into_inner().segments;
    let segment = listed.iter().find(|segment| segment.state() == SegmentState::Parked).unwrap();
    let names_it = |status: &tonic::Status| {
        status.code() == Code::Unavailable
            && status.message().contains(&segment.segment_id)
            && status.message().contains("segments retry")
    };
    assert!(names_it(&refused), "{refused}");

    // Everybody else's events are stored, new ones and duplicates, those too whose segments had its tag.
    let after = store_each(&service, "after", TAGS + 2).await;
    for event in before.into_iter().chain(after) {
        let answer = send(&service, vec![event.clone()], Durability::Stored).await;
        assert!(answer.as_ref().is_ok_and(|answer| answer.counts.unwrap().duplicate == 1), "{event:?}: {answer:?}");
    }
    // Duplicates of what is in it fail, alone and beside others.
    let status = send(&service, vec![parked[7].clone()], Durability::Stored).await.unwrap_err();
    assert!(names_it(&status), "{status}");
    let mixed = vec![click("mixed", at), parked[8].clone()];
    assert!(names_it(&send(&service, mixed.clone(), Durability::Stored).await.unwrap_err()));
    // Logged, they are acknowledged as before.
    assert_eq!(send(&service, mixed, Durability::Logged).await.unwrap().counts.unwrap().duplicate, 2);

    assert_eq!(segments.retry_parked_segments(RetryParkedSegmentsRequest {}).await.unwrap().into_inner().segments, 1);
    eventually("stored", || async { send(&service, parked.clone(), Durability::Stored).await.is_ok() }).await;
    service.assert_counted(2 * (TAGS + 2) + 50 + 1).await;
}
