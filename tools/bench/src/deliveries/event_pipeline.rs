//! The event pipeline, which records every event in Redis, against the same commands sent bare to another Redis.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tallyhouse_testkit::TestRedis;
use tokio::task::{JoinSet, block_in_place};

use super::USERS;
use super::redis_commands::{Recording, RedisCommands};
use crate::ingest::{BATCH, per_second};
use crate::report::{Report, median};
use crate::service::BenchService;

/// Clients that post events, each those of its own users, so that they arrive in order.
const CLIENTS: u32 = 4;
const USERS_PER_CLIENT: u32 = USERS / CLIENTS;
/// Events that a user may send in a second: more than there are, so that limits are kept and refuse nobody.
const USER_EVENTS_PER_SECOND: &str = "1000000";
/// Pause between two looks at the state of the pipeline.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Longest that nothing may be processed.
const STANDSTILL_MAX: Duration = Duration::from_secs(60);

/// Processes `events` events in each of `rounds` rounds, in turns with the bare commands. Without a Redis to start, which is
/// said on standard error, nothing is measured.
pub(super) async fn measure(
    program: &Path,
    dir: &Path,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let started = block_in_place(|| Some((TestRedis::start()?, TestRedis::start()?)));
    let Some((redis, bare)) = started else {
        eprintln!("deliveries.redis_*: left out");
        return Ok(());
    };
    let events = events - events % CLIENTS as usize;
    // Before the service: it loads its scripts when it connects.
    let recording = Recording::begin(&redis)?;
    let mut pipeline = EventPipeline::start(program, dir, &redis).await?;
    pipeline.process(events).await?;
    let commands = block_in_place(|| recording.end(&redis))?;
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let rate = pipeline.process(events).await?;
        let bare = send_bare(&commands, &bare, events)?;
        ratios.push(rate / bare);
        ours.push(rate);
        theirs.push(bare);
    }
    let baseline = median(theirs);
    report.add("deliveries.redis_per_second", median(ours), "events/s");
    report.add("deliveries.redis_baseline_per_second", baseline, "events/s");
    report.add("deliveries.redis_baseline_commands_per_second", baseline * per_event(&commands, events), "commands/s");
    report.add("deliveries.redis_ratio", median(ratios), "× bare commands");
    Ok(())
}

/// The rate at which the commands are done that so many events took.
fn send_bare(commands: &RedisCommands, redis: &TestRedis, events: usize) -> anyhow::Result<f64> {
    let taken = block_in_place(|| commands.send_to(redis))?;
    #[allow(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
    Ok(events as f64 / taken.as_secs_f64())
}

#[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_event(commands: &RedisCommands, events: usize) -> f64 {
    commands.len() as f64 / events as f64
}

/// A service with the event pipeline.
struct EventPipeline {
    service: BenchService,
    http: reqwest::Client,
    /// Events that were sent so far, and how often.
    sent: u64,
    rounds: u32,
}

impl EventPipeline {
    async fn start(program: &Path, dir: &Path, redis: &TestRedis) -> anyhow::Result<Self> {
        let url = redis.url();
        let settings = [
            ("TALLYHOUSE_PIPELINE", "true"),
            ("TALLYHOUSE_REDIS_URL", url.as_str()),
            ("TALLYHOUSE_PIPELINE_USER_EVENTS_PER_SECOND", USER_EVENTS_PER_SECOND),
        ];
        let service = BenchService::start(program, dir.join("redis"), &settings).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { service, http, sent: 0, rounds: 0 })
    }

    /// Posts events of new users, and waits until all are processed; returns the rate.
    async fn process(&mut self, events: usize) -> anyhow::Result<f64> {
        self.service.settled().await?;
        self.service.merged().await?;
        let share = |client| bodies(self.rounds, client, events / CLIENTS as usize);
        let shares: Vec<_> = (0..CLIENTS).map(share).collect::<anyhow::Result<_>>()?;
        self.rounds += 1;
        self.sent += events as u64;
        let begun = Instant::now();
        let mut clients = JoinSet::new();
        for bodies in shares {
            clients.spawn(post(self.http.clone(), self.service.url.clone(), bodies));
        }
        while let Some(done) = clients.join_next().await {
            done??;
        }
        self.processed().await?;
        Ok(per_second(events, begun))
    }

    /// Returns when everything that was sent is processed.
    async fn processed(&self) -> anyhow::Result<()> {
        let url = format!("{}/pipeline/status", self.service.url);
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let status: Value = serde_json::from_slice(&self.http.get(&url).send().await?.bytes().await?)?;
            ensure!(status["failed"] == 0 && status["redis"] == "up", "not everything was processed: {status}");
            let processed = status["processed"].as_u64().unwrap_or_default();
            if status["waiting"] == 0 && processed == self.sent {
                return Ok(());
            }
            if processed > last {
                (last, since) = (processed, Instant::now());
            }
            ensure!(since.elapsed() < STANDSTILL_MAX, "nothing is processed: {status}");
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

/// Posts bodies, one after the other.
async fn post(http: reqwest::Client, url: String, bodies: Vec<Vec<u8>>) -> anyhow::Result<()> {
    for body in bodies {
        let request = http.post(format!("{url}/pipeline/events")).header("content-type", "application/json").body(body);
        let answer = request.send().await?;
        ensure!(answer.status().as_u16() == 202, "events were answered with {}", answer.status());
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(results.iter().all(|result| result["status"] == "accepted"), "not all were accepted");
    }
    Ok(())
}

/// Bodies of requests with events of a client's users, who are new in each round; the users in turns.
fn bodies(round: u32, client: u32, events: usize) -> anyhow::Result<Vec<Vec<u8>>> {
    let users = client * USERS_PER_CLIENT..(client + 1) * USERS_PER_CLIENT;
    let events: Vec<Value> =
        (1..).flat_map(|seq| users.clone().map(move |user| event(round, user, seq))).take(events).collect();
    let body = |events: &[Value]| anyhow::Ok(serde_json::to_vec(&json!({ "events": events }))?);
    events.chunks(BATCH).map(body).collect()
}

fn event(round: u32, user: u32, seq: u64) -> Value {
    json!({
        "eventId": format!("event-{round}-{user}-{seq}"),
        "userId": format!("user_{round}_{user}"),
        "type": "order_placed",
        "payload": { "seq": seq, "total": 19.5 },
    })
}
