//! Tests the keys that clients read, through crashes of the engine and of Redis, and after Redis has lost its data.

use std::collections::HashMap;

use tallyhouse_testkit::TestRedis;

use super::*;
use crate::domain::{Backoff, EventState, Position, SubscriptionSettings};
use crate::engine::{Engine, EngineBounds, EngineParts};
use crate::handler::TrialProcessor;
use crate::source::MemorySource;
use crate::store::{DeliveryStore, SubscriptionRecord};

type TestHandler = Arc<RedisHandler<TrialProcessor>>;

struct World {
    redis: TestRedis,
    dir: tempfile::TempDir,
    source: Arc<MemorySource>,
}

impl World {
    async fn new() -> Option<Self> {
        let redis = tokio::task::spawn_blocking(TestRedis::start).await.unwrap()?;
        Some(Self { redis, dir: tempfile::tempdir().unwrap(), source: Arc::default() })
    }

    fn start(&self) -> (Engine, TestHandler) {
        let connection = RedisConnection::new(&self.redis.url(), redis_handler_scripts()).unwrap();
        let handler = RedisHandler::new(TrialProcessor, connection, Clock::system(), "test".to_owned());
        let handler = Arc::new(handler);
        let backoff = Backoff { ms_min: 1, ms_max: 2 };
        let subscription = SubscriptionRecord {
            id: 1,
            org_id: "acme".to_owned(),
            name: "test".to_owned(),
            settings: SubscriptionSettings { backoff, ..SubscriptionSettings::default() },
            handler: String::new(),
            start: Position::START,
            created_at_ms: 0,
        };
        let engine = Engine::start(EngineParts {
            subscription,
            bounds: EngineBounds { settlements_max: 100_000, ..EngineBounds::default() },
            source: Arc::clone(&self.source) as Arc<_>,
            handler: Arc::clone(&handler) as Arc<_>,
            store: Arc::new(DeliveryStore::open(&self.dir.path().join("delivery.redb")).unwrap()),
            clock: Clock::system(),
        });
        (engine.unwrap(), handler)
    }

    async fn idle(&self, engine: &Engine, events: u64) {
        while engine.status().await.unwrap().waiting > 0 || self.source.released().row < events {
            tokio::task::yield_now().await;
        }
        drop(engine.hold().await.unwrap());
    }

    fn hash(&self, key: &str) -> HashMap<String, String> {
        self.redis.ask(&["HGETALL", key])
    }

    /// Everything that clients read, but for windows and counts.
    fn contents(&self) -> Vec<(String, Vec<String>)> {
        let mut keys: Vec<String> = self.redis.ask(&["KEYS", "*"]);
        keys.retain(|key| key != keys::COUNTS);
        keys.sort_unstable();
        let content = |key: String| {
            let kind: String = self.redis.ask(&["TYPE", &key]);
            let content = match kind.as_str() {
                "string" => vec![self.redis.ask(&["GET", &key])],
                "list" => self.redis.ask(&["LRANGE", &key, "0", "-1"]),
                _ => {
                    let mut fields: Vec<String> =
                        self.hash(&key).into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                    fields.sort_unstable();
                    fields
                }
            };
            (key, content)
        };
        keys.into_iter().map(content).collect()
    }
}

fn event(user: &str, seq: u64, fails: bool) -> Event {
    Event {
        id: format!("{user}-{seq}"),
        event_type: "click".to_owned(),
        user_id: user.to_owned(),
        seq,
        properties: if fails { r#"{"fail":true}"# } else { r#"{"a":1}"# }.to_owned(),
        ..Event::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_read_what_became_of_events() {
    let Some(world) = World::new().await else { return };
    let (engine, _) = world.start();
    world.source.push([event("ann", 3, false), event("ann", 1, false), event("ann", 2, true)]);
    world.source.push([Event { id: "again".to_owned(), ..event("ann", 1, false) }, event("bob", 0, false)]);
    world.idle(&engine, 5).await;
    let good = world.hash("event:ann-3");
    let fields = ["status", "attempts", "userId", "type", "seq"].map(|field| good[field].as_str());
    assert_eq!(fields, ["processed", "1", "ann", "click", "3"]);
    assert!(good["processedAt"].parse::<u64>().unwrap() > 1_600_000_000_000 && !good.contains_key("error"));
    let bad = world.hash("event:ann-2");
    assert_eq!((bad["status"].as_str(), bad["attempts"].as_str()), ("failed", "3"));
    assert!(!bad["error"].is_empty());
    assert_eq!(world.hash("event:again")["attempts"], "0");
    assert!(!world.hash("event:bob-0").contains_key("seq"));
    assert_eq!(world.redis.ask::<Vec<String>>(&["LRANGE", "order:ann", "0", "-1"]), ["1", "3"]);
    let mut dead: Vec<String> = world.redis.ask(&["LRANGE", "dlq:list", "0", "-1"]);
    dead.sort_unstable();
    assert_eq!(dead, ["again", "ann-2"]);
    let letter = world.hash("dlq:ann-2");
    assert_eq!((letter["reason"].as_str(), letter["attempts"].as_str()), ("handler_failed", "3"));
    assert_eq!(
        letter["event"],
        r#"{"eventId":"ann-2","userId":"ann","type":"click","occurred_at_ms":0,"payload":{"fail":true}}"#
            .replace("occurred_at_ms", "occurredAtMs")
    );
    assert_eq!(world.redis.ask::<Vec<String>>(&["KEYS", "inflight:*"]), Vec::<String>::new());
    let status = engine.event("ann-3").await.unwrap().unwrap();
    let EventState::Settled(settlement) = status.state else { panic!("{status:?}") };
    assert_eq!(settlement.processed_at_ms.to_string(), good["processedAt"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_of_the_engine_and_of_redis_change_no_record() {
    let Some(mut world) = World::new().await else { return };
    let (mut engine, mut handler) = world.start();
    let mut pushed = 0;
    let mut before: HashMap<String, HashMap<String, String>> = HashMap::new();
    for round in 0..6_u64 {
        for user in ["ann", "bob", "cid"] {
            let seqs = (round * 50 + 1..=round * 50 + 50).rev();
            world.source.push(seqs.map(|seq| event(user, seq, seq.is_multiple_of(25))));
        }
        pushed += 150;
        while world.redis.ask::<u64>(&["LLEN", "order:ann"]) < round * 48 + 1 {
            tokio::task::yield_now().await;
        }
        if round.is_multiple_of(2) {
            engine.crash().await;
        } else {
            world.redis.kill();
            tokio::task::yield_now().await;
            world.redis.restart();
        }
        for (id, record) in &before {
            assert_eq!(world.hash(id), *record, "{id} was written again");
        }
        for id in world.redis.ask::<Vec<String>>(&["KEYS", "event:*"]) {
            before.insert(id.clone(), world.hash(&id));
        }
        if round.is_multiple_of(2) {
            drop((engine, handler));
            (engine, handler) = world.start();
        }
    }
    world.idle(&engine, pushed).await;
    for user in ["ann", "bob", "cid"] {
        let order: Vec<u64> = world.redis.ask(&["LRANGE", &format!("order:{user}"), "0", "-1"]);
        assert_eq!(order, (1..=300).filter(|seq| seq % 25 != 0).collect::<Vec<u64>>());
    }
    assert_eq!(world.redis.ask::<u64>(&["LLEN", "dlq:list"]), 36);
    assert_eq!(world.redis.ask::<Vec<String>>(&["KEYS", "inflight:*"]), Vec::<String>::new());
    for id in world.redis.ask::<Vec<String>>(&["KEYS", "event:*"]) {
        let record = world.hash(&id);
        let expected = if record["status"] == "failed" { "3" } else { "1" };
        assert_eq!(record["attempts"], expected, "{id}");
    }
    assert!(!handler.loss().check(900).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_has_lost_is_noticed_and_restored() {
    let Some(world) = World::new().await else { return };
    let (engine, handler) = world.start();
    world.source.push((1..=30).map(|seq| event("ann", seq, seq == 7)));
    world.source.push([event("bob", 2, false), event("bob", 1, false)]);
    world.idle(&engine, 32).await;
    let before = world.contents();
    assert!(!handler.loss().check(32).await.unwrap());
    let _: String = world.redis.ask(&["FLUSHALL"]);
    assert!(handler.loss().check(32).await.unwrap());
    // It goes on.
    world.source.push([event("ann", 31, false)]);
    world.idle(&engine, 33).await;
    assert!(handler.loss().check(33).await.unwrap(), "what is new does not hide what is lost");
    let summary = handler.restore(&engine).await.unwrap();
    assert_eq!((summary.records, summary.restored, summary.dead_letters), (33, 32, 1));
    assert!(!handler.loss().is_lost());
    let mut after = world.contents();
    let order = after.iter_mut().find(|(key, _)| key == "order:ann").unwrap();
    assert_eq!(order.1.pop().as_deref(), Some("31"), "in order");
    after.retain(|(key, _)| !key.ends_with(":ann-31"));
    assert_eq!(after, before);
    let again = handler.restore(&engine).await.unwrap();
    assert_eq!((again.restored, again.users), (0, 0), "nothing is lacking any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_succeeds_when_it_is_replayed_leaves_the_list() {
    let Some(world) = World::new().await else { return };
    let (engine, handler) = world.start();
    world.source.push([event("ann", 1, true), event("ann", 2, false)]);
    world.idle(&engine, 2).await;
    let delivery = |is_replay: bool| {
        let event = Arc::new(event("ann", 1, false));
        vec![vec![Delivery {
            event,
            attempt: 1,
            is_last_attempt: false,
            is_replay,
            gaps: Arc::default(),
            traceparent: String::new(),
        }]]
    };
    let answers = handler.deliver(delivery(false)).await;
    assert!(matches!(&answers[0][0], Outcome::Already(known) if known.outcome == FinalOutcome::Failed));
    let answers = handler.deliver(delivery(true)).await;
    assert!(matches!(answers[0][0], Outcome::Done { .. }), "{answers:?}");
    let answers = handler.deliver(delivery(true)).await;
    assert!(matches!(&answers[0][0], Outcome::Already(known) if known.outcome == FinalOutcome::Processed));
    assert_eq!(world.hash("event:ann-1")["status"], "processed");
    assert_eq!(world.redis.ask::<Vec<String>>(&["LRANGE", "order:ann", "0", "-1"]), ["2", "1"]);
    assert_eq!(world.redis.ask::<u64>(&["EXISTS", "dlq:list", "dlq:ann-1"]), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_whose_id_is_that_of_the_list_leaves_the_list_whole() {
    let Some(world) = World::new().await else { return };
    let (engine, handler) = world.start();
    let named_list = Event { id: "list".to_owned(), ..event("eve", 1, true) };
    world.source.push([event("ann", 1, true), named_list, event("bob", 1, false)]);
    world.idle(&engine, 3).await;
    let listed = || -> Vec<String> { world.redis.ask(&["LRANGE", "dlq:list", "0", "-1"]) };
    let mut ids = listed();
    ids.sort_unstable();
    assert_eq!(ids, ["ann-1", "list"]);
    assert_eq!(world.hash("event:list")["status"], "failed");
    assert!(!handler.loss().check(3).await.unwrap());
    let _: String = world.redis.ask(&["FLUSHALL"]);
    let summary = handler.restore(&engine).await.unwrap();
    assert_eq!((summary.restored, summary.dead_letters), (3, 2));
    assert_eq!(listed().len(), 2);
    assert_eq!(engine.erase_user("eve").await.unwrap(), 1);
    assert_eq!(listed(), ["ann-1"]);
    assert_eq!(world.hash("dlq:ann-1")["eventId"], "ann-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_leaves_what_other_services_wrote_and_writes_nothing_of_erased_users() {
    let Some(world) = World::new().await else { return };
    let (engine, handler) = world.start();
    world.source.push([event("ann", 1, true), event("ann", 2, true), event("bob", 1, false)]);
    world.idle(&engine, 3).await;
    let _: u64 = world.redis.ask(&["LREM", "dlq:list", "0", "ann-2"]);
    let _: u64 = world.redis.ask(&["LPUSH", "dlq:list", "of-another-service"]);
    // As if Redis had lost that it was replayed.
    let _: u64 = world.redis.ask(&["RPUSH", "dlq:list", "bob-1"]);
    assert_eq!(engine.erase_user("bob").await.unwrap(), 0);
    handler.restore(&engine).await.unwrap();
    let listed: Vec<String> = world.redis.ask(&["LRANGE", "dlq:list", "0", "-1"]);
    assert_eq!(listed, ["of-another-service", "ann-1", "ann-2"]);
    assert_eq!(world.redis.ask::<Vec<String>>(&["KEYS", "order:*"]), ["order:bob"]);
}
