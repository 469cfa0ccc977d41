//! Events are kept for as long as the setting says, also when it is changed,
//! and what was deleted is neither counted again nor taken from the rollups.

use std::time::Duration;

use tallyhouse::transport::proto::{Event, EventResult, HourResult, IngestBatchRequest, RejectionCode, Verdict};

use crate::audit::{HOUR, NO_BACKGROUND, try_audit};
use crate::events::{click, clicks, now_millis, window};
use crate::service::{TestService, eventually};

const DAY: i64 = 24 * HOUR;
const CHECK_OFTEN: (&str, &str) = ("TALLYHOUSE_RETENTION_CHECK_SECONDS", "1");

/// Events of a month that has passed a retention period of 30 days, whenever
/// this is run.
fn long_ago() -> i64 {
    now_millis() - 100 * DAY
}

/// What becomes of an event. (Of one that is accepted, nothing else is said.)
async fn result(service: &TestService, event: Event) -> EventResult {
    let results = service.store(vec![event]).await.results;
    results
        .into_iter()
        .next()
        .unwrap_or_else(|| EventResult { verdict: Verdict::Accepted.into(), ..Default::default() })
}

async fn merge(service: &TestService) {
    service.sql("OPTIMIZE TABLE events FINAL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retention_period_of_any_length_keeps_what_it_says() {
    for (days, oldest) in [("1", now_millis() - DAY + HOUR), ("36500", DAY), ("28930", DAY)] {
        let service = TestService::with(&[("TALLYHOUSE_RETENTION_DAYS", days), NO_BACKGROUND, CHECK_OFTEN]).await;
        service.store(vec![click("now", now_millis()), click("oldest", oldest)]).await;
        // Whatever is to be deleted is deleted by merges or by the service.
        for _ in 0..3 {
            merge(&service).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        assert_eq!(service.sql("SELECT count() FROM events").await, "2", "{days} days");
        assert_eq!(result(&service, click("now", now_millis())).await.verdict(), Verdict::Conflict, "{days} days");
        assert_eq!(service.sql("SELECT sum(events) FROM type_hours").await, "2", "{days} days");
    }
}

/// As versions before 0.2 have set it.
async fn set_ttl(service: &TestService, ttl: &str) {
    let alter = format!("ALTER TABLE events MODIFY TTL toDateTime(occurred_at) + {ttl}");
    service.sql(&format!("{alter} SETTINGS materialize_ttl_after_modify = 0")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn raising_the_retention_period_saves_stored_events() {
    let mut service = TestService::with(&[("TALLYHOUSE_RETENTION_DAYS", "1"), NO_BACKGROUND]).await;
    set_ttl(&service, "toIntervalDay(1)").await;
    let at = now_millis() - DAY + 20_000;
    service.store(vec![click("saved", at), click("now", now_millis())]).await;
    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_RETENTION_DAYS", "730");
    service.start().await;
    // The time that the part was written to be deleted at.
    eventually("the old day", || async { now_millis() > at + DAY + 2_000 }).await;
    merge(&service).await;
    assert_eq!(service.sql("SELECT count() FROM events").await, "2");
    // What the TTL may have deleted is not counted again.
    let at = now_millis() - 2 * DAY;
    let refused = result(&service, click("perhaps deleted", at)).await;
    assert_eq!(refused.code(), RejectionCode::TooOld, "{refused:?}");
    let audited = try_audit(service.channel().await, window(at, at + HOUR), true).await.unwrap();
    assert_eq!(audited.results()[0], HourResult::Expired);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ttl_of_somebody_else_is_refused_with_what_to_do() {
    let mut service = TestService::with(&[NO_BACKGROUND]).await;
    set_ttl(&service, "toIntervalMonth(1)").await;
    assert_eq!(service.stop(), Some(0));
    let said = service.start_in_vain();
    assert!(said.contains("ALTER TABLE tallyhouse.events REMOVE TTL"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_deleted_months_never_count_again() {
    let mut service = TestService::with(&[NO_BACKGROUND, CHECK_OFTEN]).await;
    let (old, now) = (long_ago(), now_millis());
    let mut events = clicks("old", 300, old);
    events.extend(clicks("now", 100, now));
    service.store(events).await;
    let counted = service.totals().await;

    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_RETENTION_DAYS", "30");
    service.start().await;
    eventually("the month is deleted", || async { service.sql("SELECT count() FROM events").await == "100" }).await;
    assert_eq!(service.totals().await[1..], counted[1..], "the rollups keep their counts");

    // Raised again, it takes neither what was deleted nor anything beside it,
    // and repairs nothing there.
    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_RETENTION_DAYS", "730");
    service.start().await;
    for id in ["old-7", "new"] {
        let refused = result(&service, click(id, old)).await;
        assert_eq!((refused.verdict(), refused.code()), (Verdict::Rejected, RejectionCode::TooOld), "{id}");
        assert_eq!(refused.errors[0].field, "occurred_at");
    }
    let audited = try_audit(service.channel().await, window(old, old + HOUR), true).await.unwrap();
    assert!(audited.results().iter().all(|result| *result == HourResult::Expired), "{:?}", audited.hours);
    assert!(!audited.hours.is_empty() && audited.summary.expired > 0);
    assert_eq!(service.totals().await[1..], counted[1..]);
    // Other months are as they were.
    let older = old - 70 * DAY;
    assert_eq!(result(&service, click("older", older)).await.verdict(), Verdict::Accepted);
    assert_eq!(result(&service, click("older", older)).await.verdict(), Verdict::Duplicate);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_not_deleted_while_a_segment_may_be_stored_in_part() {
    let mut service = TestService::with(&[NO_BACKGROUND, CHECK_OFTEN]).await;
    let old = long_ago();
    service.store(clicks("before", 100, old)).await;
    // The last of the tables does not take the rows, so those before have them.
    service.sql("ALTER TABLE user_minutes ADD CONSTRAINT never CHECK events > 100").await;
    let request = IngestBatchRequest { events: clicks("half", 50, old), durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    eventually("a failed insert", || async { service.stderr().contains("an insert failed and will be repeated") })
        .await;
    service.kill();
    service.set("TALLYHOUSE_RETENTION_DAYS", "30");
    service.start().await;
    eventually("the month waits", || async { service.stderr().contains("a month is not deleted") }).await;
    assert_ne!(service.sql("SELECT count() FROM events").await, "0");
    service.sql("ALTER TABLE user_minutes DROP CONSTRAINT never").await;
    service.settled().await;
    eventually("the month is deleted", || async { service.sql("SELECT count() FROM events").await == "0" }).await;
    assert_eq!(service.totals().await, ["0", "150", "150", "150", "150"]);
}
