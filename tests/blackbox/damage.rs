//! Damaged segments of the log: what is good of them is stored, and verdicts about the rest are true.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tallyhouse::transport::proto::{self, IngestBatchRequest};

use crate::audit::NO_BACKGROUND;
use crate::events::{clicks, now_millis};
use crate::service::{TestService, eventually, signal};

/// Events of a batch, which is a frame.
const BATCH: usize = 100;
/// One insert at a time: while it hangs, batches gather in the open segment.
const ONE_INSERT: (&str, &str) = ("TALLYHOUSE_INSERTS_IN_FLIGHT_MAX", "1");
const SHORT_INSERT: (&str, &str) = ("TALLYHOUSE_INSERT_WAIT_MS_MAX", "2000");

async fn send(second: &TestService, events: Vec<proto::Event>) -> proto::VerdictCounts {
    let request = IngestBatchRequest { events, ..Default::default() };
    second.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap()
}

/// The files with this extension that hold something.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let is_one = |path: &PathBuf| path.extension().is_some_and(|of| of == extension);
    paths.filter(is_one).filter(|path| path.metadata().is_ok_and(|file| file.len() > 0)).collect()
}

/// Where the frames of a segment begin.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let length = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut frames) = (16 + length(8), Vec::new());
    while at < bytes.len() {
        frames.push(at);
        at += 8 + length(at);
    }
    frames
}

/// Flips a bit in the rows of a frame, counted from the end, and returns the file's bytes from before.
fn flip(path: &Path, from_end: usize) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let frames = frames(&bytes);
    let place = frames[frames.len() - 1 - from_end] + 40;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[place] ^ 4], place as u64).unwrap();
    bytes
}

/// Overwrites a file, so that nothing of it is good.
fn spoil(path: &Path) {
    let bytes = std::fs::read(path).unwrap().len();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![7; bytes], 0).unwrap();
}

/// A service with an insert that hangs, and so many batches behind it in the open segment.
async fn with_backlog(batches: usize) -> (TestService, TestService, Vec<Vec<proto::Event>>) {
    with_backlog_and(batches, &[]).await
}

/// The same, with these settings.
async fn with_backlog_and(
    batches: usize,
    settings: &[(&str, &str)],
) -> (TestService, TestService, Vec<Vec<proto::Event>>) {
    let service = TestService::with(&[NO_BACKGROUND]).await;
    let settings = [&[NO_BACKGROUND, ONE_INSERT, SHORT_INSERT], settings].concat();
    let second = service.second(&settings).await;
    signal(service.engine_pid(), "STOP");
    let at = now_millis();
    let batches: Vec<_> = (0..=batches).map(|batch| clicks(&format!("batch-{batch}"), BATCH, at)).collect();
    for batch in &batches {
        assert_eq!(send(&second, batch.clone()).await.accepted, 100);
        // The first goes at once.
        eventually("a segment under way", || async { !files(&second.log_dir(), "sealed").is_empty() }).await;
    }
    (service, second, batches)
}

/// Asserts that one batch is lost, that everybody is told the truth about all of them, and that all are counted
/// once in the end.
async fn assert_one_batch_is_lost(service: &TestService, second: &TestService, batches: &[Vec<proto::Event>]) {
    let (all, lost) = (batches.len() * BATCH, BATCH);
    eventually("the good frames are stored", || async {
        service.sql("SELECT count() FROM events").await == (all - lost).to_string()
    })
    .await;
    eventually("the file is kept", || async { files(&second.log_dir(), "damaged").len() == 1 }).await;
    let ready = reqwest::get(format!("{}/readyz", second.url)).await.unwrap();
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!((&ready["status"], &ready["reasons"][0]["code"]), (&"degraded".into(), &"SEGMENTS_DAMAGED".into()));
    let (mut accepted, mut duplicates) = (0, 0);
    for batch in batches {
        let counts = send(second, batch.clone()).await;
        accepted += counts.accepted as usize;
        duplicates += counts.duplicate as usize;
    }
    assert_eq!((accepted, duplicates), (lost, all - lost), "what is lost can be sent again, and nothing else");
    assert_counted(service, all).await;
}

async fn assert_counted(service: &TestService, events: usize) {
    eventually("all are counted", || async { service.totals().await == vec![events.to_string(); 5] }).await;
    assert_eq!(service.sql("SELECT count() FROM events").await, events.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn good_frames_of_a_damaged_segment_are_stored() {
    // In the segment that was written to, and in a sealed one; the last frame of that.
    for (state, from_end) in [("open", 3), ("sealed", 3), ("sealed", 0)] {
        let (service, mut second, batches) = with_backlog(9).await;
        second.kill();
        let open = files(&second.log_dir(), "open").pop().unwrap();
        let path = open.with_extension(state);
        std::fs::rename(&open, &path).unwrap();
        let original = flip(&path, from_end);
        signal(service.engine_pid(), "CONT");
        second.start().await;
        assert_one_batch_is_lost(&service, &second, &batches).await;

        // Put back from a copy, it changes nothing: all of it has been sent again.
        second.kill();
        std::fs::write(path.with_extension("sealed"), &original).unwrap();
        second.start().await;
        eventually("it is settled", || async { files(&second.log_dir(), "sealed").is_empty() }).await;
        assert_counted(&service, batches.len() * BATCH).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_put_back_whole_adds_what_was_lost() {
    let (service, mut second, batches) = with_backlog(5).await;
    second.kill();
    let path = files(&second.log_dir(), "open").pop().unwrap();
    let original = flip(&path, 2);
    signal(service.engine_pid(), "CONT");
    second.start().await;
    eventually("the file is kept", || async { files(&second.log_dir(), "damaged").len() == 1 }).await;
    second.kill();
    std::fs::write(path.with_extension("sealed"), &original).unwrap();
    second.start().await;
    assert_counted(&service, batches.len() * BATCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_a_segment_under_way_costs_one_frame() {
    let (service, second, batches) = with_backlog(9).await;
    flip(&files(&second.log_dir(), "open").pop().unwrap(), 3);
    signal(service.engine_pid(), "CONT");
    assert_one_batch_is_lost(&service, &second, &batches).await;
    assert!(second.stderr_of_run().contains("\"lost\":100"), "it is said how many");
}

/// Segments that are not stored yet and whose ids have left memory, with their last good or damaged frame.
#[tokio::test(flavor = "multi_thread")]
async fn lost_frames_can_be_sent_again_despite_the_ledger() {
    let settings = [("TALLYHOUSE_SEGMENT_ROWS_MAX", "300"), ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50")];
    for while_it_runs in [true, false] {
        let (service, mut second, batches) = with_backlog_and(9, &settings).await;
        let ledger = second.log_dir().with_file_name("ledger");
        eventually("the ids of closed segments are noted", || async { files(&ledger, "ids").len() >= 3 }).await;
        let noted = |path: &PathBuf| ledger.join(path.file_name().unwrap()).with_extension("ids").exists();
        // Not the one whose insert is under way.
        let mut sealed: Vec<_> = files(&second.log_dir(), "sealed").into_iter().filter(noted).collect();
        sealed.sort();
        let path = sealed.pop().unwrap();
        if while_it_runs {
            flip(&path, 0);
            signal(service.engine_pid(), "CONT");
        } else {
            second.kill();
            flip(&path, 0);
            signal(service.engine_pid(), "CONT");
            second.start().await;
        }
        assert_one_batch_is_lost(&service, &second, &batches).await;
        eventually("the notes go", || async { files(&ledger, "ids").is_empty() }).await;
    }
}

/// Nothing of a segment is good. After a restart it is not in the log any more when its ids are looked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_segment_can_be_sent_again_despite_the_ledger() {
    let settings = [("TALLYHOUSE_SEGMENT_ROWS_MAX", "100"), ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50")];
    for while_it_runs in [true, false] {
        let (service, mut second, batches) = with_backlog_and(5, &settings).await;
        let ledger = second.log_dir().with_file_name("ledger");
        eventually("the ids of closed segments are noted", || async { files(&ledger, "ids").len() >= 3 }).await;
        let noted = |path: &PathBuf| ledger.join(path.file_name().unwrap()).with_extension("ids").exists();
        let mut sealed: Vec<_> = files(&second.log_dir(), "sealed").into_iter().filter(noted).collect();
        sealed.sort();
        let path = sealed.pop().unwrap();
        if while_it_runs {
            spoil(&path);
            signal(service.engine_pid(), "CONT");
        } else {
            second.kill();
            spoil(&path);
            signal(service.engine_pid(), "CONT");
            second.start().await;
        }
        eventually("it is known what is lost", || async { second.stderr_of_run().contains("\"lost\":100") }).await;
        assert_one_batch_is_lost(&service, &second, &batches).await;
        eventually("no file waits for the ledger", || async { files(&second.log_dir(), "stored").is_empty() }).await;
    }
}

/// The log holds more ids than may be in memory, and the ledger that had them is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_ledger_is_read_within_the_bound_on_memory() {
    let settings = [
        ("TALLYHOUSE_SEGMENT_ROWS_MAX", "300"),
        ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50"),
        ("TALLYHOUSE_INDEX_IDS_MAX", "1000"),
        ("TALLYHOUSE_BATCH_EVENTS_MAX", "200"),
    ];
    let (service, mut second, batches) = with_backlog_and(40, &settings).await;
    second.kill();
    std::fs::remove_dir_all(second.log_dir().with_file_name("ledger")).unwrap();
    signal(service.engine_pid(), "CONT");
    second.start().await;
    let held = crate::ids::metric(&second, "tallyhouse_index_ids").await;
    assert!(held <= 1_300, "{held} ids are in memory");
    eventually("all are known", || async {
        let mut duplicates = 0;
        for batch in &batches {
            let counts = send(&second, batch.clone()).await;
            assert_eq!(counts.accepted, 0, "{counts:?}");
            duplicates += counts.duplicate as usize;
        }
        duplicates == batches.len() * BATCH
    })
    .await;
    assert_counted(&service, batches.len() * BATCH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_end_on_a_full_disk_does_not_prevent_the_start() {
    let mut service = TestService::with_log_disk(&[("TALLYHOUSE_LOG_FREE_BYTES_MIN", "0"), ONE_INSERT], 4).await;
    signal(service.engine_pid(), "STOP");
    let events = clicks("torn", 500, now_millis());
    let request = IngestBatchRequest { events: events.clone(), ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();
    let copies = tempfile::tempdir().unwrap();
    let found = ["open", "sealed"].iter().flat_map(|state| files(&service.log_dir(), state)).next().unwrap();
    let copy = copies.path().join(found.file_name().unwrap()).with_extension("open");
    let mut bytes = std::fs::read(found).unwrap();
    bytes.extend_from_slice(&[7; 50_000]);
    std::fs::write(copy, bytes).unwrap();
    signal(service.engine_pid(), "CONT");
    service.kill();
    // The disk is another after each start: it gets the torn segment, and is filled to the last byte.
    let log = service.data_dir().join("log").display().to_string();
    let setup = format!(
        "cp {}/*.open {log}/ && touch {log}/lock && {{ dd if=/dev/zero of={log}/filling bs=4096 status=none 2>/dev/null || true; }}",
        copies.path().display()
    );
    service.set("TEST_LOG_SETUP", &setup);
    service.start().await;
    service.assert_counted(500).await;
    assert!(service.stderr().contains("what is cut off cannot be kept"), "{}", service.stderr());
    assert_eq!(files(&service.log_dir(), "cut"), Vec::<PathBuf>::new());
}
