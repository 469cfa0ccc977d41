//! This version on what programs of older versions have written, and older programs on what this one has written.
//!
//! The fixtures were written by older programs (see `tests/fixtures/upgrade/README.md`). The tests that need such a program
//! are left out unless `TALLYHOUSE_OLD` names one.

use std::path::{Path, PathBuf};

use serde_json::json;
use tallyhouse::transport::proto::{self, IngestBatchRequest};

use super::OLD;
use super::old_data::{OldData, fixtures, post};
use super::old_schema;
use crate::audit::{HOUR, try_audit};
use crate::clock::set_clock::{self, Clock};
use crate::events::{clicks, now_millis, window};
use crate::service::{TestService, eventually};

/// How long after the end of the older service this one is started, in milliseconds.
const LATER: i64 = 600_000;

/// Asserts that a service continues where an older one was killed.
async fn assert_taken_over(service: &TestService, data: &OldData) {
    let (status, health) = service.get("/readyz").await;
    assert_eq!((status, &health["status"]), (200, &json!("ready")), "{health}");
    service.settled().await;
    assert_counts(service, data.accepted()).await;

    // Whatever is sent again is known.
    let mut known = data.logged();
    known.push(data.stored());
    for events in known {
        let sent = events.len();
        let counts = service.store(events).await.counts.unwrap();
        assert_eq!(counts, proto::VerdictCounts { duplicate: u32::try_from(sent).unwrap(), ..Default::default() });
    }
    for call in &data.calls {
        let answered = post(service, &call.key, &call.body).await;
        assert_eq!(answered, (call.status, true, call.answer.clone()), "{}", call.key);
        let (status, _, other) = post(service, &call.key, &json!({ "events": [] })).await;
        assert!(status == 422, "another body: {other}");
    }
    // What was logged is accepted, as the caller would have been told.
    let mut ingest = service.ingest().await;
    let sent = data.interrupted();
    let events = u32::try_from(sent.events.len()).unwrap();
    for is_replayed in [false, true] {
        let answer = ingest.ingest_batch(sent.clone()).await.unwrap().into_inner();
        assert_eq!((answer.counts.unwrap().accepted, answer.replayed), (events, is_replayed));
    }
    assert_counts(service, data.accepted()).await;
    assert_audited(service, data).await;
}

/// Asserts that the hour of the older service's events is found consistent.
async fn assert_audited(service: &TestService, data: &OldData) {
    let at = data.occurred_at();
    let audited = try_audit(service.channel().await, window(at - HOUR, at + HOUR), false).await.unwrap();
    assert_eq!(audited.results(), [], "{:?}", audited.hours);
    assert!(audited.summary.hours > 0);
}

async fn assert_counts(service: &TestService, events: usize) {
    assert_eq!(service.totals().await, vec![events.to_string(); 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_older_versions_is_taken_over() {
    let fixtures = fixtures();
    assert!(!fixtures.is_empty());
    for fixture in fixtures {
        println!("{}", fixture.display());
        let engine = TestService::new().await;
        let mut service = engine.unstarted_second(&[("TALLYHOUSE_CLICKHOUSE_DATABASE", OLD)]);
        let data = OldData::unpack(&fixture, service.data_dir());
        for statement in old_schema(&data.schema) {
            engine.sql(&statement).await;
        }
        data.restore_rows(&engine, OLD).await;
        // Keys are kept for a day: it is the day on which the fixture was made.
        let dir = tempfile::tempdir().unwrap();
        let library = set_clock::build(dir.path()).unwrap();
        let clock = Clock::at(&library, dir.path().join("clock"), data.at + LATER).unwrap();
        service.set("LD_PRELOAD", clock.library.to_str().unwrap());
        service.set("CHAOS_CLOCK", clock.path.to_str().unwrap());
        service.start().await;
        service.use_database(OLD);
        assert_taken_over(&service, &data).await;

        let more = clicks("more", 10, data.at + LATER);
        assert_eq!(service.store(more).await.counts.unwrap().accepted, 10);
        assert_counts(&service, data.accepted() + 10).await;
        assert_eq!(service.stop(), Some(0));
        service.start().await;
        assert_counts(&service, data.accepted() + 10).await;
    }
}

/// The program of an older version that `TALLYHOUSE_OLD` names.
fn old_program() -> PathBuf {
    std::env::var_os("TALLYHOUSE_OLD").expect("TALLYHOUSE_OLD names a program of an older version").into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a program of an older version"]
async fn a_fixture_of_an_older_version_is_written() {
    let fixture = PathBuf::from(std::env::var_os("TALLYHOUSE_FIXTURE").expect("TALLYHOUSE_FIXTURE names a directory"));
    let mut old = TestService::unstarted_of(&old_program(), &[]);
    old.start().await;
    let data = OldData::write(&mut old).await;
    data.pack(old.data_dir(), &fixture);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a program of an older version"]
async fn an_older_program_is_replaced_and_comes_back() {
    let (old, new) = (old_program(), Path::new(env!("CARGO_BIN_EXE_tallyhouse")));
    let mut service = TestService::unstarted_of(&old, &[]);
    service.start().await;
    let data = OldData::write(&mut service).await;
    service.set_program(new);
    service.start().await;
    assert_taken_over(&service, &data).await;
    let mut counted = data.accepted();
    // As docs/operations.md says it: with an empty log.
    for (round, program) in [old.as_path(), new, old.as_path()].into_iter().enumerate() {
        let at = now_millis() - 60_000;
        let sent = |part: &str| clicks(&format!("{part}-{round}"), 25, at);
        service.store(sent("last")).await;
        counted += 25;
        service.settled().await;
        assert_eq!(service.stop(), Some(0));
        service.set_program(program);
        service.start().await;
        eventually("ready", || async { service.get("/readyz").await.1["status"] == "ready" }).await;
        let again = IngestBatchRequest { events: sent("last"), ..Default::default() };
        let again = service.ingest().await.ingest_batch(again).await.unwrap().into_inner();
        assert_eq!(again.counts.unwrap().duplicate, 25, "{}", program.display());
        for call in &data.calls {
            let answered = post(&service, &call.key, &call.body).await;
            assert_eq!(answered, (call.status, true, call.answer.clone()), "{}", program.display());
        }
        service.store(sent("first")).await;
        counted += 25;
        service.assert_counted(counted).await;
        assert_audited(&service, &data).await;
    }
}
