//! Hours that wait for an audit are known through every restart.

use tallyhouse::transport::proto::IngestBatchRequest;
use uuid::Uuid;

use crate::audit::HOUR;
use crate::events::{clicks, now_millis};
use crate::service::{TestService, eventually, signal};
use crate::token_expiry::{as_a_stranger, segments};

const DAY: i64 = 24 * HOUR;

#[tokio::test(flavor = "multi_thread")]
async fn the_hours_of_a_settled_segment_are_audited_after_a_kill() {
    // Until it is told otherwise, the background does not get to its first hour.
    let quiet = [("TALLYHOUSE_AUDIT_PAUSE_MS", "86400000"), ("TALLYHOUSE_AUDIT_HOURS", "1")];
    let mut service = TestService::with(&[&quiet[..], &[("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0")]].concat()).await;
    let at = now_millis() - 10 * DAY;
    signal(service.engine_pid(), "STOP");
    let request = IngestBatchRequest { events: clicks("old", 200, at), durability: 0, ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    service.kill();
    // The segment comes back under a token that cannot be relied on.
    for file in segments(&service.log_dir()) {
        let id = Uuid::now_v7();
        let bytes = as_a_stranger(&std::fs::read(&file).unwrap(), id);
        std::fs::remove_file(file).unwrap();
        std::fs::write(service.log_dir().join(format!("{id}.sealed")), bytes).unwrap();
    }
    service.start().await;
    service.assert_counted(200).await;
    assert!(service.stderr().contains("is settled"));
    // As it may be left: a rollup lacks what the events have.
    service.sql("ALTER TABLE type_hours DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    service.kill();
    service.set("TALLYHOUSE_AUDIT_PAUSE_MS", "20");
    service.start().await;
    eventually("the hour is repaired", || async { service.totals().await == ["200"; 5] }).await;
    eventually("no hour waits", || async { service.get("/readyz").await.1["audit"]["due"] == 0 }).await;
    let due = "SELECT countIf(is_due = 1), countIf(is_due = 0) > 0 FROM audit_due FINAL";
    eventually("it is noted", || async { service.sql(due).await == "0\t1" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hours_that_late_events_touched_are_audited_after_a_kill() {
    let settings = [
        // Long enough over for an audit only in a week.
        ("TALLYHOUSE_AUDIT_AFTER_MINUTES", "10080"),
        ("TALLYHOUSE_AUDIT_PAUSE_MS", "20"),
        ("TALLYHOUSE_AUDIT_HOURS", "1"),
    ];
    let mut service = TestService::with(&settings).await;
    let at = now_millis() - 5 * DAY;
    service.store(clicks("late", 100, at)).await;
    let noted =
        format!("SELECT count() FROM audit_due FINAL WHERE is_due AND hour < toDateTime({}, 'UTC')", at / 1_000 + 1);
    eventually("the hour is noted", || async { service.sql(&noted).await == "1" }).await;
    service.sql("ALTER TABLE type_hours DELETE WHERE 1 SETTINGS mutations_sync = 2").await;
    service.kill();
    service.set("TALLYHOUSE_AUDIT_AFTER_MINUTES", "0");
    service.start().await;
    eventually("the hour is repaired", || async { service.totals().await == ["100"; 5] }).await;
}
