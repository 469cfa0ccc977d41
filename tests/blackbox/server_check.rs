//! A service does not start on what it cannot count exactly on, and says what to
//! change.

use tallyhouse::transport::proto::IngestBatchRequest;
use uuid::Uuid;

use crate::audit::NO_BACKGROUND;
use crate::events::{clicks, now_millis};
use crate::service::{TestService, signal};
use crate::token_expiry::segments;

#[tokio::test(flavor = "multi_thread")]
async fn unfit_tables_are_refused_with_what_to_change() {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let said = async || service.unstarted_second(&[]).start_in_vain();
    service.sql("ALTER TABLE type_hours MODIFY SETTING non_replicated_deduplication_window = 100").await;
    let window = "ALTER TABLE tallyhouse.type_hours MODIFY SETTING non_replicated_deduplication_window = 10000";
    service.sql("ALTER TABLE events MODIFY SETTING fsync_after_insert = 0").await;
    let fsync = "ALTER TABLE tallyhouse.events MODIFY SETTING fsync_after_insert = 1";
    let text = said().await;
    assert!(text.contains(window) && text.contains(fsync), "{text}");
    // It is enough to do as it says.
    service.sql(window).await;
    service.sql(fsync).await;
    service.second(&[NO_BACKGROUND]).await;

    service.sql("DROP VIEW user_days_view").await;
    let text = said().await;
    assert!(text.contains("the materialized view tallyhouse.user_days_view is missing"), "{text}");
}

/// The same segment with its columns in another order, as another version may
/// have written it.
fn with_other_columns(bytes: &[u8]) -> Vec<u8> {
    let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let mut body = bytes[16..16 + length].to_vec();
    let columns = String::from_utf8_lossy(&body[36..]).replace("org_id,event_id", "event_id,org_id");
    body.truncate(36);
    body.extend_from_slice(columns.as_bytes());
    let mut segment = bytes[..12].to_vec();
    segment.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    segment.extend_from_slice(&body);
    segment.extend_from_slice(&bytes[16 + length..]);
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_whose_ids_cannot_be_read_prevents_the_start() {
    let mut service = TestService::with(&[NO_BACKGROUND]).await;
    signal(service.engine_pid(), "STOP");
    let request = IngestBatchRequest { events: clicks("of another version", 50, now_millis()), ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    service.kill();
    let files = segments(&service.log_dir());
    let [file] = &files[..] else { panic!("{files:?}") };
    let bytes = std::fs::read(file).unwrap();
    let sealed = service.log_dir().join(file.file_stem().unwrap()).with_extension("sealed");
    std::fs::rename(file, &sealed).unwrap();
    std::fs::write(&sealed, with_other_columns(&bytes)).unwrap();
    let said = service.start_in_vain();
    assert!(said.contains("another version") && said.contains("event_id,org_id"), "{said}");
    assert!(Uuid::parse_str(sealed.file_stem().unwrap().to_str().unwrap()).is_ok_and(|_| sealed.exists()));
    // As its own version reads it.
    std::fs::write(&sealed, bytes).unwrap();
    service.start().await;
    service.assert_counted(50).await;
}
