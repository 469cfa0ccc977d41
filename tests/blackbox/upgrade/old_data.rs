//! What a service of an older version has left behind: a data directory with segments that ClickHouse does not have,
//! idempotency keys and the ids of events, and what its tables held.

use std::fs::File;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tallyhouse::transport::proto::{self, Durability, IngestBatchRequest};

use crate::analytics::rfc3339;
use crate::audit::HOUR;
use crate::events::{click, clicks, now_millis};
use crate::service::{TestService, eventually, signal};

/// Events that the older service had stored, and that it had only logged, in so many batches.
const STORED: usize = 60;
const LOGGED: usize = 40;
const LOGGED_BATCHES: usize = 3;
/// Events of a call that was not answered.
const INTERRUPTED: usize = 20;
/// What is left out of the fixture: the engine's own files, and what belongs to one process.
const LEFT_OUT: [&str; 4] = ["clickhouse", "lock", "stdout.log", "stderr.log"];
/// The columns of the oldest schema.
const COLUMNS: &str =
    "org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, seq, properties, version";

/// A call with an idempotency key, and how it was answered.
#[derive(Serialize, Deserialize)]
pub(super) struct KeyedCall {
    pub(super) key: String,
    pub(super) body: Value,
    pub(super) status: u16,
    pub(super) answer: Value,
}

/// What the older service was sent.
#[derive(Serialize, Deserialize)]
pub(super) struct OldData {
    /// The last file of the schema that it knew, such as `0014_create_organization_views`.
    pub(super) schema: String,
    /// When it was killed, in milliseconds since 1970.
    pub(super) at: i64,
    /// Calls that it answered, before and while ClickHouse was away.
    pub(super) calls: Vec<KeyedCall>,
    /// What its table of events held, as `JSONEachRow`.
    pub(super) rows: String,
}

impl OldData {
    /// Has a service write what is found later, and kills it and its ClickHouse.
    pub(super) async fn write(service: &mut TestService) -> Self {
        let mut data = Self { schema: String::new(), at: now_millis(), calls: Vec::new(), rows: String::new() };
        service.store(data.stored()).await;
        data.call(service, "stored", 2).await;
        service.settled().await;
        data.schema = service.sql("SELECT max(name) FROM schema_migrations").await;
        data.rows = service.sql(&format!("SELECT {COLUMNS} FROM events FORMAT JSONEachRow")).await;

        let engine = service.engine_pid();
        signal(engine, "STOP");
        for batch in data.logged() {
            let request = IngestBatchRequest { events: batch, ..Default::default() };
            service.ingest().await.ingest_batch(request).await.unwrap();
        }
        data.call(service, "logged", 3).await;
        let before = log_bytes(service);
        let (mut ingest, interrupted) = (service.ingest().await, data.interrupted());
        let call = tokio::spawn(async move { ingest.ingest_batch(interrupted).await });
        eventually("its events are in the log", || async { log_bytes(service) > before }).await;
        assert!(!call.is_finished(), "it waits for ClickHouse");
        service.kill();
        signal(engine, "KILL");
        assert!(call.await.unwrap().is_err());
        data
    }

    /// A call with a key whose events have no ids, but one, and of which one is invalid.
    async fn call(&mut self, service: &TestService, key: &str, nameless: usize) {
        let time = rfc3339(self.occurred_at());
        let event = |source: usize| {
            json!({"event_type": "click", "user_id": "user_1", "campaign_id": "camp_1", "source": format!("{key}-{source}"),
                   "timestamp": time})
        };
        let mut events: Vec<Value> = (0..nameless).map(event).collect();
        let mut own = event(nameless);
        own["event_id"] = json!(format!("own-{key}"));
        events.extend([own, json!({"event_type": "click"})]);
        let body = json!({ "events": events });
        let (status, _, answer) = post(service, key, &body).await;
        assert_eq!((status, &answer["accepted"]), (202, &json!(nameless + 1)), "{answer}");
        self.calls.push(KeyedCall { key: key.to_owned(), body, status, answer });
    }

    /// The middle of an hour that was over then, so that an audit judges it.
    pub(super) const fn occurred_at(&self) -> i64 {
        self.at - self.at.rem_euclid(HOUR) - 2 * HOUR + HOUR / 2
    }

    /// Events that were in its ClickHouse.
    pub(super) fn stored(&self) -> Vec<proto::Event> {
        clicks("stored", STORED, self.occurred_at())
    }

    /// Batches that were acknowledged while ClickHouse was away.
    pub(super) fn logged(&self) -> Vec<Vec<proto::Event>> {
        (0..LOGGED_BATCHES).map(|batch| clicks(&format!("logged-{batch}"), LOGGED, self.occurred_at())).collect()
    }

    /// A call whose events were logged, and that was not answered.
    pub(super) fn interrupted(&self) -> IngestBatchRequest {
        let at = self.occurred_at();
        let events = (0..INTERRUPTED as u64).map(|seq| proto::Event { seq, ..click("", at) }).collect();
        let durability = Durability::Stored.into();
        IngestBatchRequest { events, durability, idempotency_key: "interrupted".to_owned() }
    }

    /// How many events it has accepted.
    pub(super) fn accepted(&self) -> usize {
        let by_calls: u64 = self.calls.iter().map(|call| call.answer["accepted"].as_u64().unwrap()).sum();
        STORED + LOGGED * LOGGED_BATCHES + INTERRUPTED + usize::try_from(by_calls).unwrap()
    }

    /// Keeps it and the data directory, but for the engine's files.
    pub(super) fn pack(&self, data_dir: &Path, fixture: &Path) {
        std::fs::create_dir_all(fixture).unwrap();
        std::fs::write(fixture.join("sent.json"), serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        let archive = File::create(fixture.join("data.tar.gz")).unwrap();
        let mut archive = tar::Builder::new(GzEncoder::new(archive, Compression::best()));
        let mut names: Vec<_> = std::fs::read_dir(data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names.iter().filter(|name| LEFT_OUT.iter().all(|left_out| name != left_out)) {
            let path = data_dir.join(name);
            if path.is_dir() { archive.append_dir_all(name, path) } else { archive.append_path_with_name(path, name) }
                .unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap();
    }

    /// Puts the data directory of a fixture where a service will find it.
    pub(super) fn unpack(fixture: &Path, data_dir: &Path) -> Self {
        let archive = File::open(fixture.join("data.tar.gz")).unwrap();
        tar::Archive::new(GzDecoder::new(archive)).unpack(data_dir).unwrap();
        serde_json::from_str(&std::fs::read_to_string(fixture.join("sent.json")).unwrap()).unwrap()
    }

    /// Puts what the older tables held into tables of the same schema.
    pub(super) async fn restore_rows(&self, engine: &TestService, database: &str) {
        engine.sql(&format!("INSERT INTO {database}.events ({COLUMNS}) FORMAT JSONEachRow\n{}", self.rows)).await;
    }
}

/// The fixtures: one directory for each older version.
pub(super) fn fixtures() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/upgrade");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

/// Status, whether it was replayed, and body of a call with a key.
pub(super) async fn post(service: &TestService, key: &str, body: &Value) -> (u16, bool, Value) {
    let url = format!("{}/api/v1/events", service.url);
    let answer = service.http.post(url).header("Idempotency-Key", key).json(body).send().await.unwrap();
    let is_replayed = answer.headers().contains_key("idempotency-replayed");
    (answer.status().as_u16(), is_replayed, answer.json().await.unwrap())
}

fn log_bytes(service: &TestService) -> u64 {
    let files = std::fs::read_dir(service.log_dir()).unwrap().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
}
