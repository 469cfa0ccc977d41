//! The test suite that every handler passes, run through an engine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tallyhouse_testkit::TestRedis;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::*;
use crate::domain::{Backoff, Position, SubscriptionSettings};
use crate::engine::{Clock, Engine, EngineBounds, EngineParts};
use crate::redis::RedisConnection;
use crate::source::MemorySource;
use crate::store::{DeliveryStore, SubscriptionRecord};

/// What a handler under test has seen: event ids in order.
type Seen = Arc<Mutex<Vec<String>>>;

/// Declares each test once for every handler.
macro_rules! of_every_handler {
    ($($name:ident)+) => {
        mod trial { $( #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::trial_parts().await).await; } )+ }
        mod webhook { $( #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::webhook_parts().await).await; } )+ }
        mod pull { $( #[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::pull_parts().await).await; } )+ }
        mod redis { $( #[tokio::test(flavor = "multi_thread")] async fn $name() {
            if let Some(parts) = super::redis_parts().await { super::$name(parts).await; }
        } )+ }
    };
}

of_every_handler! {
    events_are_handled_in_order_and_failures_become_dead_letters
    a_restart_hands_out_nothing_that_was_recorded
    a_dead_letter_can_be_replayed_and_is_one_again_when_it_fails
}

/// A handler and what must outlive it.
struct Parts {
    handler: Arc<dyn Handler>,
    /// None where only the records tell.
    seen: Option<Seen>,
    _keep: Box<dyn std::any::Any + Send>,
}

async fn trial_parts() -> Parts {
    let handler = Arc::new(TrialHandler::new(Clock::system(), Duration::ZERO));
    Parts { handler, seen: None, _keep: Box::new(()) }
}

async fn redis_parts() -> Option<Parts> {
    let redis = tokio::task::spawn_blocking(TestRedis::start).await.unwrap()?;
    let connection = RedisConnection::new(&redis.url(), redis_handler_scripts()).unwrap();
    let handler = Arc::new(RedisHandler::new(TrialProcessor, connection, Clock::system(), "test".to_owned()));
    Some(Parts { handler, seen: None, _keep: Box::new(redis) })
}

async fn pull_parts() -> Parts {
    let handler = Arc::new(PullHandler::new(Clock::system(), Duration::from_secs(20)));
    let seen = Seen::default();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let (consumer, mut received) = handler.connect();
        consumer.add_credits(3);
        let seen = Arc::clone(&seen);
        consumers.push(tokio::spawn(async move {
            while let Some(PulledDelivery { lease, delivery }) = received.recv().await {
                let acknowledgement = match TrialProcessor.process(&delivery.event) {
                    Ok(()) => {
                        seen.lock().push(delivery.event.id.clone());
                        Acknowledgement::Done
                    }
                    Err(error) => Acknowledgement::Failed { error, retry_after: None },
                };
                consumer.acknowledge(lease, acknowledgement).unwrap();
                consumer.add_credits(1);
            }
        }));
    }
    Parts { handler, seen: Some(seen), _keep: Box::new(consumers) }
}

const SECRETS: [&str; 2] =
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="];

async fn webhook_parts() -> Parts {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let seen = Seen::default();
    let receiver = tokio::spawn(receive(listener, Arc::clone(&seen)));
    let settings = WebhookSettings {
        url,
        secrets: SECRETS.map(str::to_owned).into(),
        timeout: Duration::from_secs(10),
        addresses: AddressPolicy::Any,
    };
    let handler = Arc::new(WebhookHandler::new(&settings, Clock::system()).unwrap());
    Parts { handler, seen: Some(seen), _keep: Box::new(receiver) }
}

/// A receiver that has only the second secret, and checks signatures as receivers do.
async fn receive(listener: TcpListener, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            while let Some((headers, body)) = read_request(&mut stream).await {
                standardwebhooks::Webhook::new(SECRETS[1]).unwrap().verify(&body, &headers).expect("signed");
                let id = headers["webhook-id"].to_str().unwrap().to_owned();
                let text = String::from_utf8(body).unwrap();
                let status = if text.contains(r#""fail":true"#) { "500 No" } else { "204 Yes" };
                if status == "204 Yes" {
                    seen.lock().push(id);
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).await.unwrap();
            }
        });
    }
}

async fn read_request(stream: &mut BufReader<tokio::net::TcpStream>) -> Option<(reqwest::header::HeaderMap, Vec<u8>)> {
    let mut headers = reqwest::header::HeaderMap::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.trim_end().split_once(": ") {
            let name: reqwest::header::HeaderName = name.parse().unwrap();
            headers.insert(name, value.parse().unwrap());
        }
    }
    let length = headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some((headers, body))
}

struct World {
    dir: tempfile::TempDir,
    source: Arc<MemorySource>,
    parts: Parts,
}

impl World {
    fn new(parts: Parts) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), source: Arc::default(), parts }
    }

    fn start(&self) -> Engine {
        let settings =
            SubscriptionSettings { backoff: Backoff { ms_min: 1, ms_max: 2 }, ..SubscriptionSettings::default() };
        let subscription = SubscriptionRecord {
            id: 1,
            org_id: "acme".to_owned(),
            name: "test".to_owned(),
            settings,
            handler: String::new(),
            start: Position::START,
            created_at_ms: 0,
        };
        Engine::start(EngineParts {
            subscription,
            bounds: EngineBounds { settlements_max: 1_000, ..EngineBounds::default() },
            source: Arc::clone(&self.source) as Arc<_>,
            handler: Arc::clone(&self.parts.handler),
            store: Arc::new(DeliveryStore::open(&self.dir.path().join("delivery.redb")).unwrap()),
            clock: Clock::system(),
        })
        .unwrap()
    }

    async fn idle(&self, engine: &Engine, events: u64) {
        while engine.status().await.unwrap().waiting > 0 || self.source.released().row < events {
            tokio::task::yield_now().await;
        }
        // What is under way is recorded then.
        drop(engine.hold().await.unwrap());
    }

    /// How many times each event was handled, as far as the handler tells, and whether users' events came in order.
    fn check_seen(&self, expected: &[(&str, u64)]) {
        let Some(seen) = &self.parts.seen else { return };
        let mut users: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for id in seen.lock().iter() {
            let (user, seq) = id.split_once('-').unwrap();
            users.entry(user.to_owned()).or_default().push(seq.parse().unwrap());
        }
        for (user, last) in expected {
            let expected: Vec<u64> = (1..=*last).filter(|seq| seq % 5 != 0).collect();
            assert_eq!(users[*user], expected, "{user}");
        }
    }
}

/// Every fifth fails.
fn event(user: &str, seq: u64) -> Event {
    let properties = if seq.is_multiple_of(5) { r#"{"fail":true}"# } else { "" };
    Event {
        id: format!("{user}-{seq}"),
        event_type: "click".to_owned(),
        user_id: user.to_owned(),
        seq,
        properties: properties.to_owned(),
        ..Event::default()
    }
}

async fn events_are_handled_in_order_and_failures_become_dead_letters(parts: Parts) {
    let world = World::new(parts);
    let engine = world.start();
    world.source.push((1..=12).rev().map(|seq| event("ann", seq)));
    world.source.push((1..=7).map(|seq| event("bob", seq)));
    world.idle(&engine, 19).await;
    world.check_seen(&[("ann", 12), ("bob", 7)]);
    let letters = engine.letters(0, 100).await.unwrap();
    let mut dead: Vec<&str> = letters.iter().map(|letter| letter.event.id.as_str()).collect();
    dead.sort_unstable();
    assert_eq!(dead, ["ann-10", "ann-5", "bob-5"]);
    assert!(letters.iter().all(|letter| letter.attempts == 3 && !letter.error.is_empty()));
    assert_eq!(engine.user("ann").await.unwrap().gaps.named(), [5, 10]);
    engine.stop().await;
}

async fn a_restart_hands_out_nothing_that_was_recorded(parts: Parts) {
    let world = World::new(parts);
    let mut last = 0;
    for _ in 0..3 {
        let engine = world.start();
        world.source.push((last + 1..=last + 6).map(|seq| event("ann", seq)));
        last += 6;
        world.idle(&engine, last).await;
        engine.crash().await;
    }
    world.check_seen(&[("ann", 18)]);
}

async fn a_dead_letter_can_be_replayed_and_is_one_again_when_it_fails(parts: Parts) {
    let world = World::new(parts);
    let engine = world.start();
    world.source.push((1..=6).map(|seq| event("ann", seq)));
    world.idle(&engine, 6).await;
    let first = engine.letters(0, 10).await.unwrap().remove(0);
    assert_eq!(engine.replay(&[first.number]).await.unwrap(), 1);
    let again = loop {
        let letters = engine.letters(0, 10).await.unwrap();
        if let Some(letter) = letters.into_iter().find(|letter| letter.number != first.number) {
            break letter;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((again.event.id.as_str(), again.attempts, again.is_replay), ("ann-5", 3, true));
    assert_eq!(engine.discard(&[again.number]).await.unwrap(), 1);
    assert_eq!(engine.status().await.unwrap().dead_letters, 0);
    world.check_seen(&[("ann", 6)]);
    engine.stop().await;
}
