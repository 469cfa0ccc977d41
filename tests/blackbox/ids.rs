//! An id counts once, whatever time it comes back with: also when it has left memory, after restarts and crashes,
//! and when the id ledger is damaged or missing.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tallyhouse::transport::proto::{self, IngestBatchRequest, Verdict, VerdictCounts};
use tonic::Code;

use crate::audit::NO_BACKGROUND;
use crate::events::{click, clicks, now_millis, timestamp};
use crate::service::{PATIENCE, TestService, eventually, signal};

const DAY: i64 = 86_400_000;
/// Pause of a sender who is told to come again.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Memory for few ids, which are written to the ledger soon.
const SMALL: [(&str, &str); 4] = [
    NO_BACKGROUND,
    ("TALLYHOUSE_INDEX_IDS_MAX", "4000"),
    ("TALLYHOUSE_BATCH_EVENTS_MAX", "1000"),
    ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "50"),
];

/// The value of a metric that has no labels.
pub(crate) async fn metric(service: &TestService, name: &str) -> u64 {
    let metrics = service.http.get(format!("{}/metrics", service.url)).send().await.unwrap().text().await.unwrap();
    let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}: {metrics}")).split(' ').nth(1).unwrap().parse().unwrap()
}

/// Waits until no id is in memory alone.
async fn left_memory(service: &TestService) {
    eventually("memory is empty", || async { metric(service, "tallyhouse_index_ids").await == 0 }).await;
}

/// Waits until the ledger can decide about every id.
async fn whole_ledger(service: &TestService) {
    eventually("a whole ledger", || async {
        let (_, body) = service.get("/readyz").await;
        !body.to_string().contains("LEDGER_INCOMPLETE")
    })
    .await;
}

/// The same events, at another time.
fn at_another_time(events: &[proto::Event], by_millis: i64) -> Vec<proto::Event> {
    let moved = |event: &proto::Event| {
        let at = event.occurred_at.unwrap();
        let millis = at.seconds * 1_000 + i64::from(at.nanos) / 1_000_000 + by_millis;
        proto::Event { occurred_at: Some(timestamp(millis)), ..event.clone() }
    };
    events.iter().map(moved).collect()
}

/// Sends events again, with the same time and with others, and asserts that all are known.
async fn assert_known(service: &TestService, events: &[proto::Event]) {
    for (by_millis, expected) in
        [(0, Verdict::Duplicate), (-3_600_000, Verdict::Conflict), (-9 * DAY, Verdict::Conflict)]
    {
        for events in at_another_time(events, by_millis).chunks(1_000) {
            let answer = service.store(events.to_vec()).await;
            let counts = answer.counts.unwrap();
            let known = if expected == Verdict::Duplicate { counts.duplicate } else { counts.conflict };
            assert_eq!(known as usize, events.len(), "{by_millis}: {counts:?}");
        }
    }
    let event = &events[0];
    let body = serde_json::json!({
        "event_id": event.event_id, "type": event.r#type, "campaign_id": event.campaign_id, "source": event.source,
        "creative_id": event.creative_id, "user_id": event.user_id, "occurred_at": "2026-11-01T00:00:00Z",
    });
    let (status, body) = service.post("/events", &body).await;
    assert_eq!(body["status"], "conflict", "{status}: {body}");
}

/// A service from whose memory these events' ids have gone.
async fn with_ids_on_disk() -> (TestService, Vec<proto::Event>) {
    let service = TestService::with(&SMALL).await;
    let mut events = clicks("old", 700, now_millis() - 10 * DAY);
    // Ids with a time in them are looked for in another way.
    let with_time = (0..300_u64).map(|n| {
        let id = format!("019a{n:04x}-0000-7000-8000-{n:012x}");
        click(&id, now_millis() - 10 * DAY)
    });
    events.extend(with_time);
    assert_eq!(service.store(events.clone()).await.counts.unwrap().accepted, 1_000);
    left_memory(&service).await;
    assert_eq!(metric(&service, "tallyhouse_ledger_ids").await, 1_000);
    (service, events)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_out_of_memory_is_known_with_any_time() {
    let (mut service, events) = with_ids_on_disk().await;
    assert_known(&service, &events).await;
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    assert_known(&service, &events).await;
    service.kill();
    service.start().await;
    assert_known(&service, &events).await;
    // ClickHouse alone is started again by the service; what came meanwhile is known as well.
    signal(service.engine_pid(), "KILL");
    let meanwhile = clicks("meanwhile", 1_000, now_millis());
    let sent = service.store(meanwhile.clone()).await.counts.unwrap();
    assert_eq!(sent.accepted + sent.duplicate, 1_000);
    left_memory(&service).await;
    assert_known(&service, &[events.clone(), meanwhile.clone()].concat()).await;
    signal(service.engine_pid(), "KILL");
    service.kill();
    service.start().await;
    assert_known(&service, &[events, meanwhile].concat()).await;
    service.assert_counted(2_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_ledger_lacks_survives_a_crash() {
    let mut service = TestService::with(&[NO_BACKGROUND, ("TALLYHOUSE_LEDGER_WRITE_MS_MAX", "3600000")]).await;
    let events = clicks("recent", 1_000, now_millis());
    assert_eq!(service.store(events.clone()).await.counts.unwrap().accepted, 1_000);
    for _ in 0..2 {
        assert_eq!(metric(&service, "tallyhouse_ledger_ids").await, 0);
        service.kill();
        service.start().await;
        assert_known(&service, &events).await;
    }
    assert_eq!(service.stop(), Some(0));
    service.start().await;
    assert_eq!(metric(&service, "tallyhouse_index_ids").await, 0, "a service that stops well writes its ids");
    assert_known(&service, &events).await;
    service.assert_counted(1_000).await;
}

/// The files of the ledger with this end of their names.
fn ledger_files(service: &TestService, end: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir(service.data_dir().join("ledger")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.to_str().unwrap().ends_with(end)).collect()
}

fn flip_bit(path: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

fn cut(path: &Path) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 100).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_or_missing_ledger_is_rebuilt_without_guessing() {
    type Damage = (&'static str, fn(&TestService));
    let (mut service, events) = with_ids_on_disk().await;
    let damages: [Damage; 6] = [
        ("a torn run", |service| cut(&ledger_files(service, ".run")[0])),
        ("a run that is missing", |service| std::fs::remove_file(&ledger_files(service, ".run")[0]).unwrap()),
        ("a flipped bit of the manifest", |service| flip_bit(&ledger_files(service, "manifest")[0], 20)),
        ("no manifest", |service| std::fs::remove_file(&ledger_files(service, "manifest")[0]).unwrap()),
        ("no directory", |service| std::fs::remove_dir_all(service.data_dir().join("ledger")).unwrap()),
        ("no key", |service| std::fs::remove_file(service.data_dir().join("ledger-key")).unwrap()),
    ];
    for (n, (what, damage)) in damages.into_iter().enumerate() {
        service.kill();
        damage(&service);
        service.start().await;
        let moved = at_another_time(&events, 3_600_000);
        let meanwhile = service.store(moved).await.counts.unwrap();
        assert_eq!(meanwhile.conflict + meanwhile.undecided, 1_000, "{what}: {meanwhile:?}");
        whole_ledger(&service).await;
        assert_known(&service, &events).await;
        let fresh = service.store(clicks(&format!("fresh-{n}"), 10, now_millis())).await.counts.unwrap();
        assert_eq!(fresh.accepted, 10, "{what}: {fresh:?}");
    }
    assert!(service.stderr().contains("cannot be used and is rebuilt"), "it is said loudly");
    service.assert_counted(1_000 + 6 * 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_leaves_few_ids_undecided() {
    let settings = [&SMALL[..], &[("TALLYHOUSE_LOOK_UP_WAIT_MS_MAX", "300")]].concat();
    let service = TestService::with(&settings).await;
    let events = clicks("old", 1_000, now_millis());
    service.store(events.clone()).await;
    left_memory(&service).await;
    signal(service.engine_pid(), "STOP");
    // In the first page of about 250 ids.
    ledger_files(&service, ".run").iter().for_each(|run| flip_bit(run, 1_000));
    let send = async |events: Vec<proto::Event>| -> VerdictCounts {
        let request = IngestBatchRequest { events, ..Default::default() };
        service.ingest().await.ingest_batch(request).await.unwrap().into_inner().counts.unwrap()
    };
    let counts = send(at_another_time(&events, -3_600_000)).await;
    assert_eq!(counts.conflict + counts.undecided, 1_000, "{counts:?}");
    assert!((1..500).contains(&counts.undecided), "{counts:?}");
    let fresh = send(clicks("fresh", 900, now_millis())).await;
    assert!(fresh.accepted > 800 && fresh.accepted + fresh.undecided == 900, "{fresh:?}");
    let (status, body) = service.get("/readyz").await;
    assert!(status == 200 && body.to_string().contains("LEDGER_INCOMPLETE"), "{body}");
    signal(service.engine_pid(), "CONT");
    whole_ledger(&service).await;
    assert_known(&service, &events).await;
    let again = service.store(clicks("fresh", 900, now_millis() - 5)).await.counts.unwrap();
    assert_eq!((again.accepted + fresh.accepted, again.undecided), (900, 0), "{again:?}");
    service.assert_counted(1_900).await;
}

/// Sends events without waiting for ClickHouse, and again as long as memory is full for a moment.
async fn log(service: &TestService, events: &[proto::Event]) -> VerdictCounts {
    let deadline = Instant::now() + PATIENCE;
    let mut ingest = service.ingest().await;
    loop {
        let request = IngestBatchRequest { events: events.to_vec(), ..Default::default() };
        match ingest.ingest_batch(request).await {
            Ok(answer) => return answer.into_inner().counts.unwrap(),
            Err(status) => assert!(is_short_of_memory(&status) && Instant::now() < deadline, "{status}"),
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// A refusal until the ledger has taken more ids, which it does in a moment.
fn is_short_of_memory(status: &tonic::Status) -> bool {
    status.code() == Code::ResourceExhausted && status.message().contains("index_ids_max")
}

#[tokio::test(flavor = "multi_thread")]
async fn one_moment_may_have_more_ids_than_memory_holds() {
    let service = TestService::with(&SMALL).await;
    // As of events that have a date only.
    let midnight = now_millis() / DAY * DAY;
    for batch in 0..20 {
        let events: Vec<_> = (0..1_000).map(|n| click(&format!("date-{batch}-{n}"), midnight)).collect();
        assert_eq!(log(&service, &events).await.accepted, 1_000);
        assert!(metric(&service, "tallyhouse_index_ids").await <= 4_000);
    }
    for batch in (0..20).rev() {
        let events: Vec<_> = (0..1_000).map(|n| click(&format!("date-{batch}-{n}"), midnight)).collect();
        assert_eq!(log(&service, &events).await.duplicate, 1_000);
        assert_eq!(log(&service, &at_another_time(&events, -1)).await.conflict, 1_000);
    }
    service.assert_counted(20_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_bounded_by_the_log_and_not_by_memory() {
    let settings = [&SMALL[..], &[("TALLYHOUSE_LOG_BYTES_MAX", "4000000")]].concat();
    let mut service = TestService::with(&settings).await;
    signal(service.engine_pid(), "STOP");
    let mut taken = Vec::new();
    let refusal = loop {
        let events = clicks(&format!("outage-{}", taken.len()), 1_000, now_millis());
        let request = IngestBatchRequest { events: events.clone(), ..Default::default() };
        match service.ingest().await.ingest_batch(request).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner().counts.unwrap().accepted, 1_000);
                taken.push(events);
            }
            Err(status) if is_short_of_memory(&status) => tokio::time::sleep(RETRY_PAUSE).await,
            Err(status) => break status,
        }
    };
    assert!(refusal.message().contains("log_bytes_max"), "{refusal}");
    assert!(taken.len() >= 20, "several times what memory holds: {}", taken.len());
    assert!(metric(&service, "tallyhouse_index_ids").await <= 4_000);
    for events in &taken {
        assert_eq!(log(&service, &at_another_time(events, -1)).await.conflict, 1_000);
    }
    // Killed in the outage, both know everything again.
    service.kill();
    service.start().await;
    for events in &taken {
        assert_eq!(service.store(at_another_time(events, -1)).await.counts.unwrap().conflict, 1_000);
        assert_eq!(service.store(events.clone()).await.counts.unwrap().duplicate, 1_000);
    }
    service.assert_counted(taken.len() * 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_dropped_only_when_its_event_expires() {
    let settings = [&SMALL[..], &[("TALLYHOUSE_RETENTION_DAYS", "730")]].concat();
    let mut service = TestService::with(&settings).await;
    let [expired, kept] = [("expired", 100), ("kept", 20)].map(|(id, days)| click(id, now_millis() - days * DAY));
    service.store(vec![expired.clone()]).await;
    left_memory(&service).await;
    service.store(vec![kept.clone()]).await;
    left_memory(&service).await;
    assert_eq!(service.stop(), Some(0));
    service.set("TALLYHOUSE_RETENTION_DAYS", "30");
    service.start().await;
    eventually("the floor rises", || async { metric(&service, "tallyhouse_ledger_floor_timestamp_seconds").await > 0 })
        .await;
    assert_known(&service, &[kept]).await;
    // Its event is gone, or about to go: nothing counts twice.
    let again = service.store(at_another_time(&[expired], 99 * DAY)).await.counts.unwrap();
    assert_eq!(again.accepted + again.conflict, 1, "{again:?}");
}
