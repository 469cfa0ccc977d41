//! Segments that come back after ClickHouse may have forgotten their tokens, or
//! knows them and does not have their rows.

use std::path::{Path, PathBuf};

use tallyhouse::transport::proto::{AuditRequest, Durability, IngestBatchRequest};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::audit::{HOUR, NO_BACKGROUND, request_audit};
use crate::events::{click, clicks, now_millis, window};
use crate::service::{TABLES, TestService, eventually, signal};

const MAGIC: &[u8; 8] = b"TALLYSG2";
const MAGIC_WITHOUT_TERMS: &[u8; 8] = b"TALLYSEG";

pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "open" || extension == "sealed"))
        .filter(|path| path.metadata().unwrap().len() > 0) // Else it was made ahead.
        .collect()
}

/// The same rows in a segment of another id, as the version before wrote it:
/// no table knows its token, and it does not say since when.
pub(crate) fn as_a_stranger(bytes: &[u8], id: Uuid) -> Vec<u8> {
    assert_eq!(&bytes[..8], MAGIC);
    let length = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    let (body, frames) = bytes[16..].split_at(length);
    let mut new_body = id.as_bytes().to_vec();
    new_body.extend_from_slice(&body[16..24]); // When it was opened.
    new_body.extend_from_slice(&body[36..]); // Its columns.
    let mut segment = MAGIC_WITHOUT_TERMS.to_vec();
    segment.extend_from_slice(&u32::try_from(new_body.len()).unwrap().to_le_bytes());
    segment.extend_from_slice(&crc32c::crc32c(&new_body).to_le_bytes());
    segment.extend_from_slice(&new_body);
    segment.extend_from_slice(frames);
    segment
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_repeated_under_a_forgotten_token_changes_nothing() {
    let mut service = TestService::new().await;
    signal(service.engine_pid(), "STOP");
    let request =
        IngestBatchRequest { events: clicks("it's \\ once", 200, now_millis()), durability: 0, ..Default::default() };
    let counts = service.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
    assert_eq!(counts.accepted, 200);
    service.kill();
    let files = segments(&service.log_dir());
    let logged: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!logged.is_empty());
    service.start().await;
    service.assert_counted(200).await;

    for round in 0..2 {
        assert_eq!(service.stop(), Some(0));
        for bytes in &logged {
            let id = Uuid::now_v7();
            std::fs::write(service.log_dir().join(format!("{id}.sealed")), as_a_stranger(bytes, id)).unwrap();
        }
        service.start().await;
        service.assert_counted(200).await;
        assert!(service.stderr().contains("is settled"), "round {round}");
        assert_eq!(service.sql("SELECT count() FROM system.tables WHERE name LIKE 'settling%'").await, "0");
    }
}

/// Takes the newest part of a table away, as if ClickHouse had been killed
/// after it noted the part's token and before it had the part.
async fn lose_newest_part(service: &TestService, table: &str) {
    let path = service
        .sql(&format!(
            "SELECT path FROM system.parts WHERE database = 'tallyhouse' AND table = '{table}' AND active \
             ORDER BY max_block_number DESC LIMIT 1"
        ))
        .await;
    service.sql(&format!("DETACH TABLE {table}")).await;
    std::fs::remove_dir_all(path).unwrap();
    service.sql(&format!("ATTACH TABLE {table}")).await;
}

/// Has the hours around a moment audited and repaired, as the background does.
async fn repair(channel: Channel, millis: i64) {
    let window = window(millis - HOUR, millis + HOUR);
    request_audit(channel, AuditRequest { window, repair: true, unproven_removals_max: 0 }).await.unwrap();
}

/// A ClickHouse of one's own, whose files the service cannot put right.
#[tokio::test(flavor = "multi_thread")]
async fn rows_lost_behind_a_token_are_stored_and_counted_again() {
    for table in ["events", "user_minutes"] {
        let service = TestService::with(&[NO_BACKGROUND]).await;
        let mut second = service.second(&[NO_BACKGROUND]).await;
        // Three hours ago, and beside it an event in a partition of its own, so
        // that nothing is merged.
        let at = now_millis() - 3 * HOUR;
        let send = async |second: &TestService, events, durability: Durability| {
            let request = IngestBatchRequest { events, durability: durability.into(), ..Default::default() };
            second.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap().accepted
        };
        assert_eq!(send(&second, vec![click("before", at - 70 * 24 * HOUR)], Durability::Stored).await, 1);

        signal(service.engine_pid(), "STOP");
        assert_eq!(send(&second, clicks("lost", 200, at), Durability::Logged).await, 200);
        second.kill();
        let logged: Vec<(PathBuf, Vec<u8>)> =
            segments(&second.log_dir()).into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect();
        signal(service.engine_pid(), "CONT");
        second.start().await;
        eventually("the segment is stored", || async { segments(&second.log_dir()).is_empty() }).await;
        assert_eq!(service.totals().await, ["201"; 5]);

        // The segment comes back, as after a crash before it was removed.
        second.kill();
        lose_newest_part(&service, table).await;
        for (file, bytes) in &logged {
            let stored = file.with_extension("stored");
            assert!(stored.exists(), "it waits for the ledger");
            std::fs::remove_file(stored).unwrap();
            std::fs::write(file, bytes).unwrap();
        }
        second.start().await;
        eventually("the segment is stored again", || async { segments(&second.log_dir()).is_empty() }).await;
        assert!(second.stderr_of_run().contains("is settled"), "{table}");
        assert_eq!(service.totals().await[0], "201", "{table}");
        assert_ne!(service.totals().await, ["201"; 5], "{table}: a rollup is off until it is audited");

        repair(second.channel().await, at).await;
        assert_eq!(service.totals().await, ["201"; 5], "{table}");
    }
}

/// Makes ClickHouse fail in the next insert into a table that has one part,
/// after it has noted the block's token: the part's name is taken, by a file.
async fn fail_next_part(service: &TestService, table: &str) {
    let name = service
        .sql(&format!(
            "SELECT concat(path, '../', partition_id, '_', toString(max_block_number + 1), '_', \
                 toString(max_block_number + 1), '_0') \
             FROM system.parts WHERE database = 'tallyhouse' AND table = '{table}' AND active \
             ORDER BY max_block_number DESC LIMIT 1"
        ))
        .await;
    std::fs::write(name, "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_failed_behind_its_token_is_repeated() {
    for table in TABLES {
        let service = TestService::with(&[NO_BACKGROUND]).await;
        let at = now_millis() - 3 * HOUR;
        service.store(vec![click("before", at)]).await;
        fail_next_part(&service, table).await;
        service.store(clicks("failed", 200, at)).await;
        assert!(service.stderr().contains("an insert failed and will be repeated"), "{table}: it must fail once");
        service.assert_stored(201).await;
        repair(service.channel().await, at).await;
        service.assert_counted(201).await;
    }
}
