//! A backup that is taken while events come in holds everything that was acknowledged before it, and is restored
//! exactly.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tallyhouse::transport::proto::IngestBatchRequest;

use crate::clickhouse_server::ClickhouseServer;
use crate::events::{clicks, now_millis};
use crate::service::TestService;

const HOUR_MILLIS: i64 = 3_600_000;

fn tallyhouse(args: &[&str], data_dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tallyhouse")).args(args).arg("--data-dir").arg(data_dir).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_during_ingest_restores_all_acknowledged() {
    let service = TestService::new().await;
    // Of an hour that is over, so that the audit judges it.
    let at = now_millis() - 3 * HOUR_MILLIS;
    let request = move |batch: usize| IngestBatchRequest {
        events: clicks(&format!("during-{batch}"), 50, at),
        ..Default::default()
    };
    service.store(clicks("before", 500, at)).await;
    // Acknowledged, and probably still in the log.
    service.ingest().await.ingest_batch(request(1_000_000)).await.unwrap();

    let is_done = Arc::new(AtomicBool::new(false));
    let sending = {
        let (mut ingest, is_done) = (service.ingest().await, Arc::clone(&is_done));
        tokio::spawn(async move {
            let mut batch = 0;
            while !is_done.load(Ordering::Relaxed) {
                ingest.ingest_batch(request(batch)).await.unwrap();
                batch += 1;
            }
            batch
        })
    };
    let parent = tempfile::tempdir().unwrap();
    let backup = parent.path().join("backup");
    let output = tokio::task::block_in_place(|| tallyhouse(&["backup", backup.to_str().unwrap()], service.data_dir()));
    is_done.store(true, Ordering::Relaxed);
    let batches = sending.await.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(batches > 0, "nothing came in meanwhile");
    service.assert_counted(550 + batches * 50).await;

    let mut restored = TestService::unstarted_dev(&[]);
    let args = ["restore", backup.to_str().unwrap()];
    let output = tokio::task::block_in_place(|| tallyhouse(&args, restored.data_dir()));
    assert!(output.status.success(), "{}", said(&output));
    restored.start().await;
    restored.settled().await;
    let before =
        "SELECT uniqExact(event_id) FROM events WHERE event_id LIKE 'before-%' OR event_id LIKE 'during-1000000-%'";
    assert_eq!(restored.sql(before).await, "550", "what was acknowledged before is there");

    let audit = ["audit", "--address", &restored.url, "--last", "6h", "--repair", "--confirm"];
    let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse")).args(audit).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let stored: usize = restored.sql("SELECT uniqExact(event_id) FROM events").await.parse().unwrap();
    assert!((550..=550 + batches * 50).contains(&stored), "{stored}");
    restored.assert_counted(stored).await;
    // Everything is known: what is sent again is a duplicate, and what the backup does not have is taken.
    restored.store(clicks("before", 500, at)).await;
    for batch in 0..batches {
        restored.store(request(batch).events).await;
    }
    restored.assert_counted(550 + batches * 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_needs_an_empty_place_and_an_unchanged_backup() {
    let service = TestService::new().await;
    service.store(clicks("event", 20, now_millis())).await;
    let parent = tempfile::tempdir().unwrap();
    let backup = parent.path().join("backup");
    let name = backup.to_str().unwrap();
    let output = tallyhouse(&["backup", name], service.data_dir());
    assert!(output.status.success(), "{}", said(&output));

    let again = tallyhouse(&["backup", name], service.data_dir());
    assert!(!again.status.success() && said(&again).contains("exists"), "{}", said(&again));
    let in_use = tallyhouse(&["restore", name], service.data_dir());
    assert!(!in_use.status.success() && said(&in_use).contains("data_dir"), "{}", said(&in_use));
    let server =
        tallyhouse(&["backup", &format!("{name}2"), "--clickhouse-url", &service.clickhouse_url], service.data_dir());
    assert!(!server.status.success() && said(&server).contains("--clickhouse-to"), "{}", said(&server));

    let key = backup.join("cursor-key");
    let mut bytes = std::fs::read(&key).unwrap();
    bytes[0] ^= 1;
    std::fs::write(&key, bytes).unwrap();
    let new = parent.path().join("new");
    let changed = tallyhouse(&["restore", name], &new);
    assert!(!changed.status.success() && said(&changed).contains("cursor-key"), "{}", said(&changed));
    assert!(!new.exists(), "nothing was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clickhouse_server_writes_its_part_on_its_disk_for_backups_and_restores_it() {
    let embedded = TestService::new().await;
    let server = ClickhouseServer::like_engine_of(&embedded).await;
    let password = std::fs::read_to_string(embedded.data_dir().join("clickhouse/password")).unwrap();
    let command = |args: &[&str], data_dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command.args(args).arg("--data-dir").arg(data_dir).args(["--clickhouse-user", "tallyhouse"]);
        command.args(["--clickhouse-url", &server.url]).env("TALLYHOUSE_CLICKHOUSE_PASSWORD", password.trim());
        tokio::task::block_in_place(|| command.output()).unwrap()
    };
    let on_server = || {
        let mut service = embedded.unstarted_second(&[("TALLYHOUSE_CLICKHOUSE_URL", &server.url)]);
        service.clickhouse_url.clone_from(&server.url);
        service
    };
    let mut service = on_server();
    service.start().await;
    let at = now_millis() - 3 * HOUR_MILLIS;
    service.store(clicks("before", 300, at)).await;
    // Acknowledged, and probably still in the log.
    let request = IngestBatchRequest { events: clicks("logged", 50, at), ..Default::default() };
    service.ingest().await.ingest_batch(request).await.unwrap();

    let parent = tempfile::tempdir().unwrap();
    let backup = parent.path().join("backup");
    let name = backup.to_str().unwrap();
    let made = command(&["backup", name, "--clickhouse-to", "Disk('backups', 'first/{part}')"], service.data_dir());
    assert!(made.status.success(), "{}", said(&made));
    service.store(clicks("after", 20, at)).await;
    service.stop();

    let restored = on_server();
    let in_use = command(&["restore", name], restored.data_dir());
    assert!(!in_use.status.success() && said(&in_use).contains("has tables already"), "{}", said(&in_use));
    for database in ["tallyhouse_analytics", "tallyhouse"] {
        restored.sql(&format!("DROP DATABASE {database} SYNC")).await;
    }
    let mut restored = on_server();
    let output = command(&["restore", name], restored.data_dir());
    assert!(output.status.success(), "{}", said(&output));
    restored.start().await;
    restored.settled().await;
    let audit = ["audit", "--address", &restored.url, "--last", "6h", "--repair", "--confirm"];
    let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse")).args(audit).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    restored.assert_counted(350).await;
    for (prefix, events) in [("before", 300), ("logged", 50), ("after", 20)] {
        restored.store(clicks(prefix, events, at)).await;
    }
    restored.assert_counted(370).await;
}
