//! A load at a steady rate, whatever the service answers: the times are
//! counted from when a batch was due, not from when it could be sent, so a
//! stall of the service is seen in full (Tene's "coordinated omission").

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::events::Generator;
use crate::report::Times;
use crate::service::BenchService;
use tallyhouse::transport::proto::IngestRequest;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;

/// Events a second.
pub(crate) const RATE: u64 = 10_000;
/// Streams that share the load.
const STREAMS: u64 = 4;
/// Events in a batch.
const BATCH: u64 = 10;
/// Batches that may wait to be sent: as many as a long stall can leave over.
const BATCHES_WAITING_MAX: usize = 1 << 16;

/// A load under way.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    streams: JoinSet<anyhow::Result<Times>>,
}

impl Load {
    /// Begins it. `seed` sets its events apart from those of other loads.
    pub(crate) async fn begin(service: &BenchService, seed: u64) -> anyhow::Result<Self> {
        let mut load = Self { stop: Arc::default(), acknowledged: Arc::default(), streams: JoinSet::new() };
        for stream in 0..STREAMS {
            let client = IngestServiceClient::new(service.channel().await?);
            let generator = Generator::new(seed + stream);
            load.streams.spawn(run(client, generator, Arc::clone(&load.stop), Arc::clone(&load.acknowledged)));
        }
        Ok(load)
    }

    /// Events that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends it, and returns how long each batch took from when it was due to
    /// its acknowledgement.
    ///
    /// # Errors
    /// When the service refused an event.
    pub(crate) async fn end(mut self) -> anyhow::Result<Times> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = Times::new();
        while let Some(done) = self.streams.join_next().await {
            times.add_all(&done??);
        }
        Ok(times)
    }
}

async fn run(
    mut client: IngestServiceClient<tonic::transport::Channel>,
    mut events: Generator,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
) -> anyhow::Result<Times> {
    let (sender, requests) = tokio::sync::mpsc::channel(BATCHES_WAITING_MAX);
    let due: Arc<Mutex<VecDeque<Instant>>> = Arc::default();
    let sent = Arc::clone(&due);
    let send = tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 * BATCH * STREAMS / RATE));
        for sequence in 0.. {
            let tick = ticks.tick().await;
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let now = SystemTime::now();
            let events = (0..BATCH).map(|_| events.event(now, Duration::from_secs(1))).collect();
            sent.lock().push_back(tick.into_std());
            if sender.send(IngestRequest { sequence, events, durability: 0 }).await.is_err() {
                break; // The stream has ended, which its reader reports.
            }
        }
    });
    let mut answers = client.ingest(ReceiverStream::new(requests)).await?.into_inner();
    let mut times = Times::new();
    while let Some(answer) = answers.message().await? {
        let counts = answer.counts.unwrap_or_default();
        ensure!(u64::from(counts.accepted) == BATCH, "the service did not accept all of a batch: {:?}", answer.results);
        let due = due.lock().pop_front().context("an answer without a batch")?;
        times.add(due.elapsed());
        acknowledged.fetch_add(BATCH, Ordering::Relaxed);
    }
    send.await?;
    Ok(times)
}
