//! Tests that stored events and the log meet without a gap or a repetition, whatever happens meanwhile.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse_delivery::store::Commit;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::super::stored_events::StoredEventsError;
use super::*;
use crate::clock::BatchArrivals;
use crate::domain::{EventDraft, Timestamp};
use crate::event_row;
use crate::log::dedup_window::DedupWindow;
use crate::log::{Frame, Holders, Lane, MemoryLog, MemoryStorage, Ordinal};

const SUBSCRIPTION: SubscriptionId = 16;
/// 2026-02-10T21:10:00Z.
const NOW: Timestamp = Timestamp::from_millis(1_770_757_800_000);
const LIMIT: Duration = Duration::from_secs(20);

/// What ClickHouse would have.
#[derive(Default)]
struct Table(Mutex<Vec<PastEvent>>);

#[async_trait]
impl StoredEvents for Table {
    async fn read(&self, _: &OrgId, range: ArrivalRange, events_max: u32) -> Result<Vec<PastEvent>, StoredEventsError> {
        let mut all: Vec<PastEvent> = self.0.lock().clone();
        all.sort_by_key(position);
        let from = Position { segment: range.from.into(), row: range.from_hash };
        let is_meant = |past: &PastEvent| position(past) >= from && past.arrival < range.before;
        Ok(all.into_iter().filter(is_meant).take(events_max as usize).collect())
    }

    async fn first_arrival(&self, _: &OrgId, from: u64, before: u64) -> Result<Option<u64>, StoredEventsError> {
        let all = self.0.lock();
        Ok(all.iter().map(|past| past.arrival).filter(|arrival| (from..before).contains(arrival)).min())
    }
}

/// Ids and positions that were read, and where to read on.
#[derive(Clone, Default)]
struct Read {
    events: Vec<(Position, String)>,
    next: Position,
}

struct World {
    log: Arc<MemoryLog>,
    table: Arc<Table>,
    clock: Arc<ArrivalClock>,
    store: Arc<DeliveryStore>,
    _dir: TempDir,
    read: Arc<Mutex<Read>>,
    /// Events that were recorded when the source was last started: they are not read again.
    recorded: usize,
    reading: Option<(JoinHandle<()>, Arc<dyn LogReader>)>,
    sent: usize,
    /// Batches that have their arrivals, and are not in the log.
    open: Vec<(BatchArrivals, String)>,
    logged: BTreeMap<Ordinal, Vec<PastEvent>>,
}

impl World {
    fn new() -> Self {
        let (storage, dedup_window) = (MemoryStorage::default(), DedupWindow { rules: 1, blocks: 1 });
        let log = Arc::new(MemoryLog::open(&storage, 5, Holders::NONE, 0, dedup_window));
        log.readers_added();
        let dir = tempfile::tempdir().unwrap();
        Self {
            log,
            table: Arc::default(),
            clock: Arc::default(),
            store: Arc::new(DeliveryStore::open(&dir.path().join("delivery.redb")).unwrap()),
            _dir: dir,
            read: Arc::default(),
            recorded: 0,
            reading: None,
            sent: 0,
            open: Vec::new(),
            logged: BTreeMap::new(),
        }
    }

    /// A batch of one event takes its arrival.
    fn begin(&mut self) {
        self.sent += 1;
        self.open.push((self.clock.batch_arrivals(1), format!("e{}", self.sent)));
    }

    /// Such a batch is appended, or refused.
    async fn end(&mut self, number: usize) {
        let (arrivals, id) = self.open.swap_remove(number);
        let (org, limits) = (OrgId::default_org(), crate::config::Config::default().event_limits());
        let draft = EventDraft { event_id: &id, event_type: "click", occurred_at: Some(NOW), ..EventDraft::default() };
        let event = crate::domain::Event::parse(&org, draft, &limits, NOW).unwrap();
        let mut rows = Frame::buffer(0);
        event_row::encode(&event, arrivals.first(), &mut rows);
        let ordinal = self.log.append(Frame::seal(rows, 1)).await.unwrap().unwrap();
        let event = Some(Event { id, ..Event::default() });
        self.logged.entry(ordinal).or_default().push(PastEvent { arrival: arrivals.first(), hash: 7, event });
    }

    /// ClickHouse gets a sealed segment.
    fn forward(&mut self) -> bool {
        let Some(segment) = self.log.take_sealed(Lane::Main) else { return false };
        let rows = self.logged.remove(&segment.ordinal).unwrap();
        // A row may be there twice for a while.
        self.table.0.lock().extend(rows.iter().take(1).cloned());
        self.table.0.lock().extend(rows);
        self.log.stored(&segment);
        true
    }

    /// Begins to read where `read` ends, as an engine does after a start.
    fn start(&mut self) {
        let border = self.store.cut_over(SUBSCRIPTION).unwrap();
        let from = self.read.lock().next;
        let needed = if is_stored(from) { border.map_or(0, |cut| cut.position.segment) } else { from.segment };
        let reader = self.log.add_bounded_reader(needed);
        let parts = PastParts {
            subscription: SUBSCRIPTION,
            org_id: OrgId::default_org(),
            arrived_from: 0,
            store: Arc::clone(&self.store),
            events: Arc::clone(&self.table) as Arc<_>,
            clock: Arc::clone(&self.clock),
            log: Arc::clone(&self.log) as Arc<_>,
            reader: Arc::clone(&reader),
        };
        let (source, read) = (PastSource::new(parts, border), Arc::clone(&self.read));
        let task = tokio::spawn(async move {
            loop {
                let from = read.lock().next;
                let batch = source.read(from, 3).await.unwrap();
                let mut read = read.lock();
                assert!(
                    batch.next > from
                        && batch.events.iter().all(|sourced| (from..batch.next).contains(&sourced.position))
                );
                let ids = batch.events.into_iter().map(|sourced| (sourced.position, sourced.event.unwrap().id));
                read.events.extend(ids);
                read.next = batch.next;
            }
        });
        if let Some((_, former)) = self.reading.replace((task, reader)) {
            former.give_up();
        }
    }

    /// Lets the source get to the log: it waits for batches that were begun before, and for ClickHouse.
    async fn meet(&mut self) {
        while !self.open.is_empty() {
            self.end(0).await;
        }
        while is_stored(self.read.lock().next) {
            self.log.seal().await;
            while self.forward() {}
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What was read since one of the events before is forgotten, as it is when a process is killed.
    async fn crash(&mut self, rng: &mut StdRng) {
        if let Some((task, _)) = &mut self.reading {
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled(), "the source failed");
            // What was being written is written before anything is read again.
            self.store.commit(SUBSCRIPTION, Commit::default()).await.unwrap();
        }
        let mut read = self.read.lock();
        let forgotten_max = (read.events.len() - self.recorded).min(4);
        let kept = read.events.len() - rng.random_range(0..=forgotten_max);
        self.recorded = kept;
        let forgotten = read.events.split_off(kept);
        if let Some((position, _)) = forgotten.first() {
            read.next = *position;
        }
        drop(read);
        self.start();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_and_the_log_meet_without_a_gap_or_a_repetition() {
    let mut crossed = 0;
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        let begin_at = rng.random_range(5..60);
        // Without that, a slow machine has stored everything before the source has got anywhere.
        let meet_at = rng.random_bool(0.5).then(|| rng.random_range(begin_at..110));
        for step in 0..120 {
            if step == begin_at {
                world.start();
            }
            if Some(step) == meet_at {
                let met = tokio::time::timeout(LIMIT, world.meet()).await;
                met.unwrap_or_else(|_| panic!("seed {seed}: the source does not get to the log"));
            }
            match rng.random_range(0..10) {
                0..4 => world.begin(),
                4..7 if !world.open.is_empty() => {
                    let number = rng.random_range(0..world.open.len());
                    world.end(number).await;
                }
                7 => world.log.seal().await,
                8 => _ = world.forward(),
                9 if step > begin_at && rng.random_bool(0.4) => world.crash(&mut rng).await,
                _ => tokio::task::yield_now().await,
            }
        }
        while !world.open.is_empty() {
            world.end(0).await;
        }
        let all_read = async {
            while world.read.lock().events.len() < world.sent {
                world.log.seal().await;
                while world.forward() {}
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        // (Borrows end before it is judged.)
        let in_time = tokio::time::timeout(LIMIT, all_read).await.is_ok();
        let read = world.read.lock().clone();
        let mut ids: Vec<&str> = read.events.iter().map(|(_, id)| id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert!(in_time, "seed {seed}: {} of {} were read", ids.len(), world.sent);
        assert_eq!((ids.len(), read.events.len()), (world.sent, world.sent), "seed {seed}");
        assert!(read.events.is_sorted(), "seed {seed}");
        let is_of_log = |(position, _): &&(Position, String)| !is_stored(*position);
        crossed += usize::from((1..world.sent).contains(&read.events.iter().filter(is_of_log).count()));
    }
    assert!(crossed > 10, "both sides had events in {crossed} runs");
}

#[test]
fn pages_grow_and_shrink_with_what_they_find() {
    let past = |arrival: u64, bytes: usize| PastEvent {
        arrival,
        hash: 0,
        event: Some(Event { properties: "x".repeat(bytes), ..Event::default() }),
    };
    assert_eq!(next_span(1_000, &[], true), (1_000, false), "the next event is looked for");
    assert_eq!(next_span(1_000, &[past(5, 0)], true), (2_000, true));
    assert_eq!(next_span(1_000_000, &[past(5, 0), past(9_005, 0)], false), (18_000, true));
    assert_eq!(next_events_max(64, &[past(1, 0)]), 128);
    assert_eq!(next_events_max(900, &[past(1, 0)]), PAGE_EVENTS_MAX);
    assert_eq!(next_events_max(900, &[past(1, 1 << 20)]), 3);
    assert_eq!(next_events_max(900, &[]), 900);
    assert_eq!(behind(&PastEvent { arrival: 4, hash: u64::MAX, event: None }), position_of(5));
}
