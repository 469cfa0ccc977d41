//! Seeded scenarios of an engine: events in any order, failures, crashes and slow handlers. What the handler received is
//! compared with what was sent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::*;
use crate::domain::{Event, EventState, FinalOutcome, GapPolicy, Order, Position};
use crate::handler::{Delivery, HandlerShape, Outcome};
use crate::source::MemorySource;

mod changes;

/// A call of the handler, in its log.
#[derive(Clone, Debug)]
struct Call {
    id: String,
    user: String,
    seq: u64,
    attempt: u32,
    is_replay: bool,
    gaps: Vec<u64>,
    is_good: bool,
}

/// Notes what it is given; fails what says so; may record its effects itself, by id.
struct LoggingHandler {
    log: Mutex<Vec<Call>>,
    effects: Mutex<HashMap<String, Settlement>>,
    shape: HandlerShape,
    is_up: Mutex<bool>,
    /// Users whose events take as long as they are here.
    slow: Mutex<BTreeSet<String>>,
    rng: Mutex<StdRng>,
}

impl LoggingHandler {
    fn new(shape: HandlerShape, seed: u64) -> Arc<Self> {
        let rng = Mutex::new(StdRng::seed_from_u64(seed));
        let (log, effects, is_up) = (Mutex::default(), Mutex::default(), Mutex::new(true));
        Arc::new(Self { log, effects, shape, is_up, slow: Mutex::default(), rng })
    }

    fn handle(&self, delivery: &Delivery) -> Outcome {
        let event = &delivery.event;
        if self.shape.records_effects
            && let Some(known) = self.effects.lock().get(&event.id).filter(|_| !delivery.is_replay)
        {
            return Outcome::Already(known.clone());
        }
        let is_good = event.properties != "fail" || delivery.is_replay;
        self.log.lock().push(Call {
            id: event.id.clone(),
            user: event.user_id.clone(),
            seq: event.seq,
            attempt: delivery.attempt,
            is_replay: delivery.is_replay,
            gaps: delivery.gaps.named(),
            is_good,
        });
        if is_good || delivery.is_last_attempt {
            let outcome = if is_good { FinalOutcome::Processed } else { FinalOutcome::Failed };
            let settlement = Settlement {
                event_id: event.id.clone(),
                user_id: event.user_id.clone(),
                event_type: event.event_type.clone(),
                seq: event.seq,
                outcome,
                processed_at_ms: 1,
                attempts: delivery.attempt,
                error: String::new(),
            };
            self.effects.lock().insert(event.id.clone(), settlement);
        }
        if is_good {
            Outcome::Done { processed_at_ms: 1 }
        } else {
            Outcome::Failed { error: "it says so".to_owned(), retry_after: None, failed_at_ms: 1 }
        }
    }

    fn calls(&self) -> Vec<Call> {
        self.log.lock().clone()
    }
}

#[async_trait]
impl Handler for LoggingHandler {
    fn shape(&self) -> HandlerShape {
        self.shape
    }

    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let pause = self.rng.lock().random_range(0..3);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        while users.iter().flatten().any(|delivery| self.slow.lock().contains(&delivery.event.user_id)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if !*self.is_up.lock() {
            return users.iter().map(|_| vec![Outcome::Unavailable { error: "down".to_owned() }]).collect();
        }
        let mut answers = Vec::new();
        for user in users {
            let mut outcomes = Vec::new();
            for delivery in &user {
                outcomes.push(self.handle(delivery));
                let has_failed = match outcomes.last() {
                    Some(Outcome::Already(known)) => known.outcome == FinalOutcome::Failed,
                    outcome => matches!(outcome, Some(Outcome::Failed { .. })),
                };
                if has_failed {
                    break;
                }
            }
            outcomes.resize(user.len(), Outcome::NotAttempted);
            answers.push(outcomes);
        }
        answers
    }
}

const RUNS: HandlerShape = HandlerShape { users_max: 8, events_per_user_max: 4, records_effects: false };
const RECORDING: HandlerShape = HandlerShape { records_effects: true, ..RUNS };

fn event(user: &str, seq: u64, fails: bool) -> Event {
    Event {
        id: format!("{user}-{seq}"),
        event_type: "click".to_owned(),
        user_id: user.to_owned(),
        seq,
        properties: if fails { "fail" } else { "" }.to_owned(),
        ..Event::default()
    }
}

fn settings() -> SubscriptionSettings {
    let backoff = crate::domain::Backoff { ms_min: 1, ms_max: 3 };
    SubscriptionSettings { backoff, ..SubscriptionSettings::default() }
}

const BOUNDS: EngineBounds = EngineBounds {
    window_events_max: 64,
    read_events_max: 16,
    user_buffered_max: 1_000,
    waiting_max: 2_000,
    settlements_max: 100_000,
    letters_max: u64::MAX,
    stop_wait: Duration::from_secs(5),
};

/// What outlives a crash.
struct World {
    dir: tempfile::TempDir,
    source: Arc<MemorySource>,
    handler: Arc<LoggingHandler>,
    settings: SubscriptionSettings,
    bounds: EngineBounds,
}

impl World {
    fn new(shape: HandlerShape, seed: u64) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            source: Arc::default(),
            handler: LoggingHandler::new(shape, seed),
            settings: settings(),
            bounds: BOUNDS,
        }
    }

    fn start(&self) -> Engine {
        let subscription = SubscriptionRecord {
            id: 1,
            org_id: "acme".to_owned(),
            name: "test".to_owned(),
            settings: self.settings.clone(),
            handler: String::new(),
            start: Position::START,
            created_at_ms: 0,
        };
        Engine::start(EngineParts {
            subscription,
            bounds: self.bounds,
            source: Arc::clone(&self.source) as Arc<_>,
            handler: Arc::clone(&self.handler) as Arc<_>,
            store: Arc::new(reopened(&self.dir)),
            clock: Clock::from_fn(|| 1),
        })
        .unwrap()
    }
}

/// The store, once what an engine was reading when it crashed has let it go.
fn reopened(dir: &tempfile::TempDir) -> DeliveryStore {
    loop {
        match DeliveryStore::open(&dir.path().join("delivery.redb")) {
            Ok(store) => return store,
            Err(StoreError::Failed(error)) if error.contains("already open") => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Waits until all of so many events were read, and none of them waits.
async fn idle(engine: &Engine, source: &MemorySource, events: usize) {
    loop {
        // Once it is held, all is recorded.
        let hold = engine.hold().await.unwrap();
        let status = engine.status().await.unwrap();
        drop(hold);
        if status.waiting == 0 && source.released().row >= events as u64 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks a log: each user's events in the order of their seqs, where one that was not recorded before a crash may be
/// repeated from there on, at most so many in all.
fn judge(calls: &[Call], sent: &[Event], crashes: usize, is_exact: bool) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let mut done: BTreeMap<&str, usize> = BTreeMap::new();
    let mut went_back = 0;
    for call in calls.iter().filter(|call| call.is_good) {
        *done.entry(&call.id).or_default() += 1;
        let last = last.entry(&call.user).or_insert(0);
        if call.seq <= *last {
            went_back += 1;
        } else {
            let missing: Vec<u64> = (*last + 1..call.seq).filter(|seq| !call.gaps.contains(seq)).collect();
            assert!(missing.is_empty(), "{call:?} came before {missing:?}");
        }
        *last = call.seq;
    }
    for event in sent {
        let times = done.get(event.id.as_str()).copied().unwrap_or_default();
        let expected = usize::from(event.properties != "fail");
        assert!(times >= expected, "{} was lost", event.id);
        assert!(expected > 0 || times == 0, "{} should have failed", event.id);
        assert!(crashes > 0 && !is_exact || times <= 1, "{} was handled {times} times", event.id);
    }
    assert!(crashes > 0 || went_back == 0, "out of order without a crash");
}

fn shuffled(seed: u64, users: usize, per_user: u64, failing: f64) -> Vec<Event> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut events = Vec::new();
    for user in 0..users {
        for seq in 1..=per_user {
            events.push(event(&format!("u{user}"), seq, rng.random_bool(failing)));
        }
    }
    events.shuffle(&mut rng);
    events
}

async fn scenario(seed: u64, shape: HandlerShape, crashes: usize) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(shape, seed);
    let sent = shuffled(seed, rng.random_range(1..20), rng.random_range(1..30), 0.05);
    let mut engine = world.start();
    let mut rest = &sent[..];
    for crash in 0..=crashes {
        let count = if crash == crashes { rest.len() } else { rng.random_range(0..=rest.len()) };
        let (now, later) = rest.split_at(count);
        world.source.push(now.iter().cloned());
        rest = later;
        if crash == crashes {
            break;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(0..60))).await;
        if rng.random_bool(0.7) {
            engine.crash().await;
        } else {
            engine.stop().await;
        }
        drop(engine);
        engine = world.start();
    }
    idle(&engine, &world.source, sent.len()).await;
    judge(&world.handler.calls(), &sent, crashes, shape.records_effects);
    let failing: BTreeSet<&str> =
        sent.iter().filter(|event| event.properties == "fail").map(|event| event.id.as_str()).collect();
    let letters = engine.letters(0, 10_000).await.unwrap();
    let dead: BTreeSet<&str> = letters.iter().map(|letter| letter.event.id.as_str()).collect();
    assert_eq!(dead, failing);
    assert_eq!(letters.len(), failing.len(), "each is a dead letter once");
    assert!(letters.iter().all(|letter| letter.attempts == 3));
    for event in &sent {
        let status = engine.event(&event.id).await.unwrap().expect("its record");
        let EventState::Settled(settlement) = status.state else { panic!("{status:?}") };
        let expected =
            if failing.contains(event.id.as_str()) { (FinalOutcome::Failed, 3) } else { (FinalOutcome::Processed, 1) };
        assert_eq!((settlement.outcome, settlement.attempts), expected, "{}", event.id);
    }
    engine.stop().await;
}

/// A store has a thread of its own, which paused time does not wait for: these scenarios run in real time.
fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.expect("it ends") });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_event_is_handled_once_and_in_order(seed in any::<u64>()) {
        run(scenario(seed, HandlerShape::SINGLE, 0));
        run(scenario(seed, RUNS, 0));
    }

    #[test]
    fn after_crashes_nothing_is_lost_and_only_what_was_not_recorded_is_repeated(seed in any::<u64>()) {
        run(scenario(seed, HandlerShape::SINGLE, 4));
        run(scenario(seed, RUNS, 4));
    }

    #[test]
    fn where_effect_and_record_are_one_step_the_effect_happens_once(seed in any::<u64>()) {
        run(scenario(seed, RECORDING, 5));
    }
}

#[test]
fn a_failed_seq_is_a_gap_that_later_deliveries_name_until_it_is_replayed() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        world.source.push([event("ann", 1, false), event("ann", 2, true), event("ann", 3, false)]);
        idle(&engine, &world.source, 3).await;
        let calls = world.handler.calls();
        let seen: Vec<(u64, u32, Vec<u64>)> =
            calls.iter().map(|call| (call.seq, call.attempt, call.gaps.clone())).collect();
        assert_eq!(seen, [(1, 1, vec![]), (2, 1, vec![]), (2, 2, vec![]), (2, 3, vec![]), (3, 1, vec![2])]);
        assert_eq!(engine.user("ann").await.unwrap().gaps.named(), [2]);
        let letter = engine.letters(0, 10).await.unwrap().remove(0);
        let (one, many) = ([letter.number], [letter.number, 99]);
        let (one, other) = tokio::join!(engine.replay(&one), engine.replay(&many));
        assert_eq!(one.unwrap() + other.unwrap(), 1, "once");
        idle(&engine, &world.source, 3).await;
        let last = world.handler.calls().pop().unwrap();
        assert_eq!((last.seq, last.is_replay, last.is_good), (2, true, true));
        while !engine.user("ann").await.unwrap().gaps.is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(engine.letters(0, 10).await.unwrap().is_empty());
        world.source.push([event("ann", 4, false)]);
        idle(&engine, &world.source, 4).await;
        assert_eq!(world.handler.calls().pop().unwrap().gaps, [0; 0]);
    });
}

#[test]
fn an_early_event_says_what_it_waits_for_and_others_go_on() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let mut engine = world.start();
        world.source.push([
            event("ann", 2, false),
            event("ann", 5, false),
            event("bob", 1, false),
            event("ann", 0, false),
        ]);
        while world.handler.calls().len() < 2 {
            tokio::task::yield_now().await;
        }
        let check = async |engine: &Engine| {
            loop {
                // It may not have been read again yet.
                let Some(status) = engine.event("ann-2").await.unwrap() else { continue };
                assert_eq!(status.state, EventState::Buffered { waiting_for_seq: 1 });
                break;
            }
        };
        check(&engine).await;
        engine.stop().await;
        drop(engine);
        engine = world.start();
        check(&engine).await;
        world.source.push([event("ann", 1, false)]);
        while world.handler.calls().len() < 4 {
            tokio::task::yield_now().await;
        }
        let seqs: Vec<u64> =
            world.handler.calls().iter().filter(|call| call.user == "ann").map(|call| call.seq).collect();
        assert_eq!(seqs, [0, 1, 2], "without seq it waits for none");
        assert_eq!(engine.user("ann").await.unwrap().lowest_buffered_seq, 5);
        let status = engine.event("ann-5").await.unwrap().unwrap();
        assert_eq!(status.state, EventState::Buffered { waiting_for_seq: 3 });
    });
}

#[test]
fn repeated_and_late_seqs_are_dead_letters_with_their_reasons() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.settings.gap_policy = GapPolicy::SkipAfterMs(20);
        let engine = world.start();
        let named = |id: &str, seq: u64| Event { id: id.to_owned(), ..event("ann", seq, false) };
        world.source.push([named("first", 1), named("again", 1), named("fourth", 4)]);
        idle(&engine, &world.source, 3).await;
        world.source.push([named("late", 3)]);
        idle(&engine, &world.source, 4).await;
        let calls = world.handler.calls();
        let seen: Vec<(&str, Vec<u64>)> = calls.iter().map(|call| (call.id.as_str(), call.gaps.clone())).collect();
        assert_eq!(seen, [("first", vec![]), ("fourth", vec![2, 3])]);
        let letters = engine.letters(0, 10).await.unwrap();
        let reasons: Vec<(&str, &str, u32)> =
            letters.iter().map(|letter| (letter.event.id.as_str(), letter.reason.as_str(), letter.attempts)).collect();
        assert_eq!(reasons, [("again", "seq_repeated", 0), ("late", "seq_late", 0)]);
        assert_eq!(engine.discard(&[letters[0].number]).await.unwrap(), 1);
        assert_eq!(engine.letters(0, 10).await.unwrap().len(), 1);
    });
}

#[test]
fn a_user_over_the_bound_of_early_events_waits_no_longer() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.bounds.user_buffered_max = 10;
        let engine = world.start();
        world.source.push((2..=12).map(|seq| event("ann", seq, false)));
        idle(&engine, &world.source, 11).await;
        let seqs: Vec<u64> = world.handler.calls().iter().map(|call| call.seq).collect();
        assert_eq!(seqs, (2..=12).collect::<Vec<u64>>());
        assert_eq!(engine.user("ann").await.unwrap().gaps.named(), [1]);
        assert_eq!(engine.status().await.unwrap().skipped, 1);
    });
}

#[test]
fn many_early_events_hold_up_neither_others_nor_the_source() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.bounds.waiting_max = 150;
        let engine = world.start();
        // More than the window and the bound hold.
        world.source.push((2..=140).map(|seq| event("ann", seq, false)));
        world.source.push((2..=140).map(|seq| event("bob", seq, false)));
        world.source.push((1..=20).map(|seq| event("cid", seq, false)));
        while world.handler.calls().iter().filter(|call| call.user == "cid").count() < 20 {
            tokio::task::yield_now().await;
        }
        let skipped = engine.status().await.unwrap().skipped;
        assert!((1..=2).contains(&skipped), "{skipped} users waited no longer");
    });
}

#[test]
fn users_whose_events_take_long_hold_up_no_others() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.settings.concurrency = 4;
        let slow = ["ann", "bob", "cid"];
        *world.handler.slow.lock() = slow.map(str::to_owned).into();
        // More than the window holds.
        for user in slow {
            world.source.push((1..=100).map(|seq| event(user, seq, false)));
        }
        world.source.push((1..=20).map(|seq| event("dan", seq, false)));
        let engine = world.start();
        while world.handler.calls().len() < 20 {
            tokio::task::yield_now().await;
        }
        assert!(world.handler.calls().iter().all(|call| call.user == "dan"));
        world.handler.slow.lock().clear();
        idle(&engine, &world.source, 320).await;
        assert_eq!(world.handler.calls().len(), 320);
    });
}

#[test]
fn a_backlog_skips_no_seq_that_is_still_to_be_read() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.bounds.waiting_max = 50;
        world.source.push([event("ann", 2, false)]);
        world.source.push((1..=400).map(|seq| event("bob", seq, false)));
        world.source.push([event("ann", 1, false)]);
        let engine = world.start();
        idle(&engine, &world.source, 402).await;
        let seqs =
            world.handler.calls().iter().filter(|call| call.user == "ann").map(|call| call.seq).collect::<Vec<_>>();
        assert_eq!(seqs, [1, 2]);
        assert_eq!(engine.status().await.unwrap().skipped, 0);
    });
}

#[test]
fn a_handler_that_is_away_costs_no_attempts() {
    run(async {
        let world = World::new(RUNS, 1);
        *world.handler.is_up.lock() = false;
        let engine = world.start();
        world.source.push((1..=5).map(|seq| event("ann", seq, seq == 2)));
        while engine.status().await.unwrap().handler_error.is_empty() {
            tokio::task::yield_now().await;
        }
        *world.handler.is_up.lock() = true;
        idle(&engine, &world.source, 5).await;
        let attempts: Vec<(u64, u32)> = world.handler.calls().iter().map(|call| (call.seq, call.attempt)).collect();
        assert_eq!(attempts, [(1, 1), (2, 1), (2, 2), (2, 3), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(engine.status().await.unwrap().handler_error, "");
    });
}

#[test]
fn a_paused_user_waits_also_after_a_restart_and_others_go_on() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        engine.pause_user("ann", true).await.unwrap();
        engine.crash().await;
        drop(engine);
        let engine = world.start();
        world.source.push([event("ann", 1, false), event("bob", 1, false)]);
        while world.handler.calls().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(world.handler.calls()[0].user, "bob");
        assert!(engine.user("ann").await.unwrap().is_paused);
        engine.pause_user("ann", false).await.unwrap();
        idle(&engine, &world.source, 2).await;
        assert_eq!(world.handler.calls().len(), 2);
    });
}

#[test]
fn in_the_order_of_arrival_seqs_do_not_matter() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.settings.order = Order::Arrival;
        let engine = world.start();
        world.source.push([3, 1, 2].map(|seq| event("ann", seq, false)));
        world.source.push([Event { id: "again".to_owned(), ..event("ann", 1, false) }]);
        idle(&engine, &world.source, 4).await;
        let seqs: Vec<u64> = world.handler.calls().iter().map(|call| call.seq).collect();
        assert_eq!(seqs, [3, 1, 2, 1]);
    });
}

#[test]
fn a_filter_that_lets_nothing_through_releases_the_source() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.settings.filter.types = vec!["purchase".to_owned()];
        let engine = world.start();
        world.source.push((1..=40).map(|seq| event("ann", seq, false)));
        idle(&engine, &world.source, 40).await;
        assert!(world.handler.calls().is_empty());
    });
}

#[test]
fn events_without_a_user_wait_for_none() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        world.source.push((1..=30).map(|n| Event { id: format!("e{n}"), ..event("", n, n == 3) }));
        idle(&engine, &world.source, 30).await;
        assert_eq!(world.handler.calls().iter().filter(|call| call.is_good).count(), 29);
    });
}
