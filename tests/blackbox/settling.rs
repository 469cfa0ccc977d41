//! Segments that come back after ClickHouse may have forgotten their tokens.

use std::path::{Path, PathBuf};

use tallyhouse::transport::proto::IngestBatchRequest;
use uuid::Uuid;

use crate::events::{clicks, now_millis};
use crate::house::{House, signal};

const MAGIC: &[u8; 8] = b"TALLYSG2";
const MAGIC_WITHOUT_TERMS: &[u8; 8] = b"TALLYSEG";

fn segments(dir: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "open" || extension == "sealed"))
        .collect()
}

/// The same rows in a segment of another id, as the version before wrote it:
/// no table knows its token, and it does not say since when.
fn as_a_stranger(bytes: &[u8], id: Uuid) -> Vec<u8> {
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
async fn a_stored_segment_that_comes_back_under_a_forgotten_token_changes_nothing() {
    let mut house = House::new().await;
    signal(house.engine_pid(), "STOP");
    let request =
        IngestBatchRequest { events: clicks("it's \\ once", 200, now_millis()), durability: 0, ..Default::default() };
    let counts = house.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap();
    assert_eq!(counts.accepted, 200);
    house.kill();
    let files = segments(&house.log_dir());
    let logged: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(!logged.is_empty());
    house.start().await;
    house.assert_counted(200).await;

    for round in 0..2 {
        assert_eq!(house.stop(), Some(0));
        for bytes in &logged {
            let id = Uuid::now_v7();
            std::fs::write(house.log_dir().join(format!("{id}.sealed")), as_a_stranger(bytes, id)).unwrap();
        }
        house.start().await;
        house.assert_counted(200).await;
        assert!(house.stderr().contains("is settled"), "round {round}");
        assert_eq!(house.sql("SELECT count() FROM system.tables WHERE name LIKE 'settling%'").await, "0");
    }
}
