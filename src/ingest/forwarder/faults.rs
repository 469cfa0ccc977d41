//! Tests the forwarder against an event store that fails in every way that a database can.

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::domain::{Event, EventDraft, OrgId, Timestamp};
use crate::event_store::{DatabaseState, EventKey, EventReading, MinuteSet, PayloadRows};
use crate::hour_versions::TouchedHours;
use crate::ingest::fingerprint::Fingerprinter;
use crate::ingest::index::doubles;
use crate::log::dedup_window::{CurrentDedupWindow, DedupWindow};
use crate::log::{DiskLog, Frame, Holders, LogSettings, MemoryLog, MemoryStorage};

/// What the database does with one insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Fails without having read anything.
    Before,
    /// Fails after some of the chunks.
    Between,
    /// Has it all, writes it, and says that it failed.
    AfterWriting,
    /// Says nothing for longer than anybody waits, having written it or not.
    Hang {
        writes: bool,
    },
    /// Fails, or is killed, when it has noted the token and not the rows.
    BehindToken,
    /// Will not have it, until somebody retries by command.
    Refuse,
}

/// On which tokens are given out.
const DEDUP_WINDOW: DedupWindow = DedupWindow { rules: 1, blocks: 7 };

#[derive(Default)]
struct Inserted {
    /// On which tokens are given out now, if others.
    dedup_window: Option<DedupWindow>,
    /// For how long tokens are remembered, if not for ever.
    token_age_max: Option<Duration>,
    /// The audit has begun to repair the hours of the segments.
    is_repaired: bool,
    /// Tokens that it knows and has nothing of.
    lost: HashSet<Uuid>,
    /// Tokens of which there was an attempt.
    attempted: HashSet<Uuid>,
    /// Attempts that did not rely on the token.
    settled: usize,
    /// The bytes of each token's insert that was written.
    written: HashMap<Uuid, Vec<u8>>,
    /// The bytes of each token's insert that was read to its end.
    read: HashMap<Uuid, Vec<u8>>,
    refused: HashSet<Uuid>,
    inserts: usize,
    under_way: usize,
    under_way_most: usize,
}

/// A database that keeps what it is given, under tokens, and fails on a plan.
struct FaultyStore {
    seed: u64,
    plan: Mutex<StdRng>,
    faults: &'static [Fault],
    inserted: Mutex<Inserted>,
}

/// Counts an insert as under way until it is dropped, too.
struct UnderWay<'a>(&'a Mutex<Inserted>);

impl<'a> UnderWay<'a> {
    fn new(inserted: &'a Mutex<Inserted>) -> Self {
        let mut counts = inserted.lock();
        counts.inserts += 1;
        counts.under_way += 1;
        counts.under_way_most = counts.under_way_most.max(counts.under_way);
        drop(counts);
        Self(inserted)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

impl FaultyStore {
    fn new(seed: u64, faults: &'static [Fault]) -> Arc<Self> {
        Arc::new(Self { seed, plan: Mutex::new(StdRng::seed_from_u64(seed)), faults, inserted: Mutex::default() })
    }

    async fn take(&self, mut segment: SegmentInsert, settles: bool) -> Result<(), StoreError> {
        let _under_way = UnderWay::new(&self.inserted);
        let fault = {
            let mut plan = self.plan.lock();
            self.faults[plan.random_range(0..self.faults.len())]
        };
        let token = segment.token;
        let is_first = self.inserted.lock().attempted.insert(token);
        assert!(!(is_first && settles), "a first attempt needs its token and nothing else");
        if fault == Fault::Before {
            return Err(StoreError::Retry("down".to_owned()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = segment.chunks.recv().await {
            bytes.extend_from_slice(&chunk.map_err(|error| StoreError::Refused(error.to_string()))?);
            if fault == Fault::Between {
                return Err(StoreError::Retry("broken off".to_owned()));
            }
        }
        self.keep(token, bytes, fault, settles);
        match fault {
            Fault::BehindToken => Err(StoreError::Retry("failed behind the token".to_owned())),
            Fault::Refuse => Err(StoreError::Refused("no such column".to_owned())),
            Fault::AfterWriting => Err(StoreError::Retry("the answer was lost".to_owned())),
            Fault::Hang { .. } => std::future::pending().await,
            Fault::None | Fault::Before | Fault::Between => Ok(()),
        }
    }

    /// Notes an insert that was read to its end, and writes it or not.
    fn keep(&self, token: Uuid, bytes: Vec<u8>, fault: Fault, settles: bool) {
        let mut inserted = self.inserted.lock();
        let before = inserted.read.entry(token).or_insert_with(|| bytes.clone());
        assert_eq!(*before, bytes, "the same bytes under the same token");
        let writes = matches!(fault, Fault::None | Fault::AfterWriting | Fault::Hang { writes: true });
        // Under a token that it knows it writes nothing.
        if writes && (settles || !inserted.lost.contains(&token)) {
            inserted.lost.remove(&token);
            inserted.written.insert(token, bytes);
        }
        if fault == Fault::BehindToken && !inserted.written.contains_key(&token) {
            inserted.lost.insert(token);
        }
        if fault == Fault::Refuse {
            inserted.refused.insert(token);
        }
    }
}

impl EventStore for FaultyStore {
    fn state(&self) -> BoxFuture<'_, Result<DatabaseState, StoreError>> {
        unreachable!("the forwarder does not ask")
    }

    fn dedup_window(&self) -> BoxFuture<'_, Result<DedupWindow, StoreError>> {
        async { Ok(self.inserted.lock().dedup_window.unwrap_or(DEDUP_WINDOW)) }.boxed()
    }

    fn token_blocks_max(&self) -> u64 {
        100
    }

    fn token_age_max(&self) -> Duration {
        self.inserted.lock().token_age_max.unwrap_or(Duration::MAX)
    }

    fn repaired_since<'a>(&'a self, _: &'a TouchedHours, _: u64) -> BoxFuture<'a, Result<bool, StoreError>> {
        async { Ok(self.inserted.lock().is_repaired) }.boxed()
    }

    fn inserts_ended(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed() // One that hangs never writes.
    }

    fn settle(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inserted.lock().settled += 1;
        self.take(segment, true).boxed()
    }

    fn insert(&self, segment: SegmentInsert) -> BoxFuture<'_, Result<(), StoreError>> {
        self.take(segment, false).boxed()
    }

    fn read<'a>(&'a self, _: &'a MinuteSet) -> BoxFuture<'a, Result<EventReading, StoreError>> {
        async { Err(StoreError::Retry("not asked here".to_owned())) }.boxed()
    }

    fn look_up<'a>(&'a self, _: &'a OrgId, _: &'a [EventKey<'a>]) -> BoxFuture<'a, Result<PayloadRows, StoreError>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

const INSERTS_IN_FLIGHT: usize = 2;

/// A log with a forwarder, and what was put into it.
struct ForwarderTest {
    log: Arc<dyn EventLog>,
    forwarder: Arc<Forwarder>,
    store: Arc<FaultyStore>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Every batch, in the order in which it was appended.
    batches: Vec<Vec<u8>>,
    _place: LogPlace,
}

/// Where logs are, one after the other: on the disk or in memory. The forwarder must not care.
struct LogPlace {
    dir: TempDir,
    memory: Option<MemoryStorage>,
}

impl LogPlace {
    fn on_disk() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), memory: None }
    }

    fn in_memory() -> Self {
        Self { memory: Some(MemoryStorage::default()), ..Self::on_disk() }
    }

    fn open(&self, dedup_window: &Arc<CurrentDedupWindow>) -> Arc<dyn EventLog> {
        if let Some(memory) = &self.memory {
            return Arc::new(MemoryLog::open(memory, 3, Holders::NONE, 0, dedup_window.get()));
        }
        let settings = LogSettings {
            dir: self.dir.path().to_owned(),
            bytes_max: 1 << 30,
            free_bytes_min: 0,
            kept_bytes_max: 1 << 20,
            segment_rows_max: 3,
            segment_bytes_max: 2 << 20,
            segment_linger: Duration::from_millis(1),
            inserts_in_flight_max: INSERTS_IN_FLIGHT,
            holders: Holders::NONE,
            ids_above: 0,
            reader_bounds: Default::default(),
        };
        Arc::new(DiskLog::open(settings, Arc::default(), Arc::clone(dedup_window)).unwrap())
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);

fn row_of(number: usize, bytes: usize) -> Vec<u8> {
    row_at(number, bytes, NOW)
}

fn row_at(number: usize, bytes: usize, occurred_at: Timestamp) -> Vec<u8> {
    let org = OrgId::default_org();
    let limits = crate::config::Config::default().event_limits();
    let limits = crate::domain::EventLimits { text_bytes_max: usize::MAX, ..limits };
    let (event_id, source) = (number.to_string(), "x".repeat(bytes));
    let draft = EventDraft {
        event_id: &event_id,
        event_type: "click",
        source: &source,
        occurred_at: Some(occurred_at),
        ..EventDraft::default()
    };
    let mut row = Vec::new();
    event_row::encode(&Event::parse(&org, draft, &limits, NOW).unwrap(), 1, &mut row);
    row
}

/// Whether a batch has events of many days, as far as the log knows.
const fn is_of_many_days(number: usize) -> bool {
    number % 4 == 2
}

impl ForwarderTest {
    fn new(store: Arc<FaultyStore>) -> Self {
        let is_on_disk = store.seed.is_multiple_of(2);
        Self::at(if is_on_disk { LogPlace::on_disk() } else { LogPlace::in_memory() }, store)
    }

    fn at(place: LogPlace, store: Arc<FaultyStore>) -> Self {
        let dedup_window = Arc::new(CurrentDedupWindow::default());
        dedup_window.set(DEDUP_WINDOW);
        let log = place.open(&dedup_window);
        let settings = ForwarderSettings {
            inserts_in_flight_max: INSERTS_IN_FLIGHT,
            insert_wait_max: Duration::from_secs(60),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
        };
        let database: Arc<dyn EventStore> = Arc::<FaultyStore>::clone(&store);
        let index = doubles::index(1_000);
        let lost_ids = LostIds::new(index, Arc::clone(&log), Arc::clone(&database), Fingerprinter::random());
        let forwarder = Forwarder::new(
            settings,
            Arc::clone(&log),
            lost_ids,
            database,
            Arc::default(),
            Arc::default(),
            dedup_window,
        );
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        Self { log, forwarder, store, tasks, stop, batches: Vec::new(), _place: place }
    }

    /// So many batches, of which some are large.
    async fn append(&mut self, batches: usize) {
        for _ in 0..batches {
            let number = self.batches.len();
            let rows = row_of(number, if number % 7 == 3 { CHUNK_BYTES * 3 / 2 } else { 10 });
            let mut buffer = Frame::buffer(rows.len());
            buffer.extend_from_slice(&rows);
            let days = if is_of_many_days(number) { (0..100).collect() } else { Vec::new() };
            self.log.append(Frame::seal(buffer, 1).on_days(days)).await.unwrap().unwrap();
            self.batches.push(rows);
        }
        self.log.seal().await;
    }

    fn start(&self) {
        self.forwarder.start(&self.tasks, &self.stop);
    }

    /// Everything is written, once: the segments' bytes are the batches', of each lane in its order.
    fn check_all_written(&self) {
        let inserted = self.store.inserted.lock();
        let of_lane = |is_scattered| {
            let batches =
                self.batches.iter().enumerate().filter(|(number, _)| is_of_many_days(*number) == is_scattered);
            batches.flat_map(|(_, batch)| batch.clone()).collect::<Vec<u8>>()
        };
        let (main, scattered) = (of_lane(false), of_lane(true));
        let (mut main, mut scattered) = (main.as_slice(), scattered.as_slice());
        // Tokens are in the order in which their segments were begun.
        let mut written: Vec<_> = inserted.written.iter().collect();
        written.sort_by_key(|(token, _)| **token);
        for (_, bytes) in written {
            if let Some(rest) = main.strip_prefix(bytes.as_slice()) {
                main = rest;
            } else {
                scattered = scattered.strip_prefix(bytes.as_slice()).expect("the next of a lane, under one token");
            }
        }
        assert!(main.is_empty() && scattered.is_empty(), "every row is written once");
        assert!(inserted.under_way_most <= INSERTS_IN_FLIGHT + SCATTERED_INSERTS_MAX);
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        assert_eq!(self.store.inserted.lock().under_way, 0);
    }
}

const TEMPORARY: [Fault; 7] = [
    Fault::None,
    Fault::Before,
    Fault::Between,
    Fault::AfterWriting,
    Fault::Hang { writes: false },
    Fault::Hang { writes: true },
    Fault::Before,
];

#[tokio::test(start_paused = true)]
async fn every_row_is_written_under_one_token_whatever_fails_for_a_time() {
    for seed in 0..60 {
        let mut bench = ForwarderTest::new(FaultyStore::new(seed, &TEMPORARY));
        bench.append(8).await;
        bench.start();
        bench.append(12).await;
        bench.forwarder.drained().await;
        assert_eq!(bench.log.segments().parked(), 0, "seed {seed}: only what is refused is parked");
        assert!(bench.log.segments().list().is_empty(), "seed {seed}");
        bench.check_all_written();
        bench.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_first_attempt_relies_on_a_token_that_may_be_forgotten() {
    let forgotten = DedupWindow { blocks: DEDUP_WINDOW.blocks + 100, ..DEDUP_WINDOW };
    let recut = DedupWindow { rules: 2, ..DEDUP_WINDOW };
    let cases = [(Some(forgotten), false, None), (Some(recut), false, None), (None, true, None)];
    for (dedup_window, is_repaired, token_age_max) in cases.into_iter().chain([(None, false, Some(Duration::ZERO))]) {
        for seed in 0..20 {
            let mut bench = ForwarderTest::new(FaultyStore::new(seed, &TEMPORARY));
            bench.store.inserted.lock().dedup_window = dedup_window;
            bench.store.inserted.lock().is_repaired = is_repaired;
            bench.store.inserted.lock().token_age_max = token_age_max;
            bench.append(1).await;
            bench.start();
            bench.forwarder.drained().await;
            let attempts = bench.store.inserted.lock().inserts;
            let settled = bench.store.inserted.lock().settled;
            assert_eq!(settled, attempts - 1, "seed {seed}: {dedup_window:?}, repaired: {is_repaired}");
            bench.end().await;
        }
    }
}

/// A clock that was wrong makes a token look too old, and is put right.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_not_relied_on_once_never_is_again() {
    for seed in 0..20 {
        let mut bench = ForwarderTest::new(FaultyStore::new(seed, &[Fault::Before, Fault::Before, Fault::None]));
        bench.store.inserted.lock().token_age_max = Some(Duration::ZERO);
        bench.append(1).await;
        bench.start();
        while bench.store.inserted.lock().settled == 0 && !bench.log.segments().list().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        bench.store.inserted.lock().token_age_max = None;
        bench.forwarder.drained().await;
        let attempts = bench.store.inserted.lock().inserts;
        let settled = bench.store.inserted.lock().settled;
        assert_eq!(settled, attempts - 1, "seed {seed}: only the first attempt used the token");
        bench.end().await;
    }
}

const BEHIND_TOKENS: [Fault; 4] = [Fault::None, Fault::BehindToken, Fault::Before, Fault::AfterWriting];

#[tokio::test(start_paused = true)]
async fn what_a_database_knows_and_does_not_have_is_written() {
    for seed in 0..60 {
        let mut bench = ForwarderTest::new(FaultyStore::new(seed, &BEHIND_TOKENS));
        bench.start();
        bench.append(20).await;
        bench.forwarder.drained().await;
        bench.check_all_written();
        bench.end().await;
    }
}

const ALSO_REFUSING: [Fault; 5] =
    [Fault::None, Fault::Refuse, Fault::Before, Fault::AfterWriting, Fault::Hang { writes: true }];

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_parked_kept_and_written_when_it_is_retried() {
    for seed in 0..40 {
        let mut bench = ForwarderTest::new(FaultyStore::new(seed, &ALSO_REFUSING));
        bench.start();
        bench.append(20).await;
        // As often as it takes.
        for _ in 0..1_000 {
            bench.forwarder.drained().await;
            let parked = bench.log.segments().list();
            assert!(parked.iter().all(|segment| bench.store.inserted.lock().refused.contains(&segment.id)));
            assert!(parked.iter().all(|segment| segment.last_error.as_deref() == Some("no such column")));
            if bench.log.retry_parked() == 0 {
                break;
            }
        }
        bench.check_all_written();
        bench.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_when_it_is_stopped_and_what_was_under_way_stays() {
    for fault in [&[Fault::Hang { writes: true }], &[Fault::Hang { writes: false }], &[Fault::Before]] {
        let mut bench = ForwarderTest::new(FaultyStore::new(1, fault));
        bench.append(9).await;
        bench.start();
        while bench.store.inserted.lock().inserts < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let before = bench.log.segments().list();
        assert_eq!(before.iter().map(|segment| segment.rows).sum::<u64>(), 9);
        assert!(before.iter().all(|segment| segment.state != SegmentState::Parked && segment.source.open().is_ok()));
        bench.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn segments_of_a_former_run_are_inserted_in_the_lane_of_their_days() {
    const DAY_MILLIS: i64 = 24 * 3_600_000;
    for place in [LogPlace::on_disk(), LogPlace::in_memory()] {
        let log = place.open(&Arc::default());
        // More scattered segments than there are tasks for the main lane, then one of a day.
        let days_of_segments: [std::ops::Range<i64>; 4] = [0..100, 0..100, 0..100, 0..1];
        for days in days_of_segments {
            let mut rows = Frame::buffer(0);
            let count = u32::try_from(days.end).unwrap();
            days.for_each(|day| rows.extend(row_at(0, 1, NOW.plus_millis(-day * DAY_MILLIS))));
            log.append(Frame::seal(rows, count)).await.unwrap().unwrap();
            log.seal().await;
        }
        log.shut().await;
        drop(log);
        let test = ForwarderTest::at(place, FaultyStore::new(1, &[Fault::Hang { writes: false }]));
        test.start();
        let mut changes = test.log.segments().changes();
        let under_way = || {
            let segments = test.log.segments().list().into_iter();
            segments.map(|segment| (segment.lane, segment.state == SegmentState::Inserting)).collect::<Vec<_>>()
        };
        let scattered = [true, false, false].map(|is_under_way| (Lane::Scattered, is_under_way));
        let expected = [&scattered[..], &[(Lane::Unknown, true)]].concat();
        while under_way() != expected {
            tokio::time::timeout(Duration::from_secs(30), changes.changed()).await.expect("each in its lane").unwrap();
        }
        test.end().await;
    }
}
