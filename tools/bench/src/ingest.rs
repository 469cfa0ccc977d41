//! How fast events stream in, against the same rows inserted bare.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use clickhouse::Client;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::events::{Generator, blocks};
use crate::report::{Report, Times, median};
use crate::service::BenchService;
use tallyhouse::clickhouse::store::INSERT_SETTINGS;
use tallyhouse::event_row;
use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tallyhouse::transport::proto::{Event, IngestRequest};

/// Streams, and connections of the baseline, at a time.
pub(crate) const STREAMS: usize = 2;
/// Events in a batch.
pub(crate) const BATCH: usize = 1_000;
/// Of a hundred events, so many repeat another one.
const DUPLICATES: u32 = 5;
/// Other shares of duplicates that are measured.
const DUPLICATES_TOO: [u32; 2] = [0, 50];
/// Batches that a stream sends ahead of its answers.
const AHEAD: usize = 8;
/// Rows of a block of the baseline.
const BLOCK_ROWS: usize = 100_000;

/// Streams `events` events in each of `rounds` rounds, and inserts the same
/// rows bare in between.
pub(crate) async fn measure(
    service: &BenchService,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut service_cpu, mut engine_cpu, mut bare_cpu) = (Vec::new(), Vec::new(), Vec::new());
    let mut acks = Times::new();
    for round in 0..rounds {
        let batches = Generator::new(u64::from(round)).batches(events, BATCH, DUPLICATES, SystemTime::now());
        let blocks = blocks(batches.iter().flatten(), BLOCK_ROWS);
        // Neither pays for the merges that the other has left behind.
        service.merged().await?;
        let at_first = service.cpu();
        let rate = insert_bare(&service.baseline.client(), blocks, events).await?;
        let bare_end = service.cpu();
        service.merged().await?;
        let before = service.cpu();
        bare_cpu.push(micros_per_event(bare_end.engine - at_first.engine, events));
        let (streamed, times) = stream(service, batches, events).await?;
        let after = service.cpu();
        service_cpu.push(micros_per_event(after.service - before.service, events));
        engine_cpu.push(micros_per_event(after.engine - before.engine, events));
        acks.add_all(&times);
        ratios.push(streamed / rate);
        theirs.push(rate);
        ours.push(streamed);
    }
    report.add("ingest.events_per_second", median(ours), "events/s");
    report.add("ingest.baseline_events_per_second", median(theirs), "events/s");
    report.add("ingest.ratio", median(ratios), "× baseline");
    report.add("ingest.service_cpu_us_per_event", median(service_cpu), "µs");
    report.add("ingest.engine_cpu_us_per_event", median(engine_cpu), "µs");
    report.add("ingest.baseline_engine_cpu_us_per_event", median(bare_cpu), "µs");
    report.add_times("ingest.ack", &acks);
    Ok(())
}

/// Streams events of which other shares are duplicates.
pub(crate) async fn measure_duplicates(
    service: &BenchService,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    for duplicates in DUPLICATES_TOO {
        let batches = Generator::new(u64::from(duplicates) + 100).batches(events, BATCH, duplicates, SystemTime::now());
        let (rate, _) = stream(service, batches, events).await?;
        report.add(&format!("ingest.events_per_second_{duplicates}_percent_duplicates"), rate, "events/s");
    }
    Ok(())
}

/// Streams the batches, and waits until they are all stored: the rate counts
/// nothing that is still on its way.
pub(crate) async fn stream(
    service: &BenchService,
    batches: Vec<Vec<Event>>,
    events: usize,
) -> anyhow::Result<(f64, Times)> {
    let streams = Streams::connect(service, batches, STREAMS).await?;
    let begun = Instant::now();
    let times = streams.send().await?;
    service.settled().await?;
    Ok((per_second(events, begun), times))
}

/// Streams that are connected, and the batches that each of them will send.
pub(crate) struct Streams(Vec<(IngestServiceClient<Channel>, Vec<IngestRequest>)>);

impl Streams {
    /// Deals the batches out to so many streams.
    pub(crate) async fn connect(
        service: &BenchService,
        batches: Vec<Vec<Event>>,
        streams: usize,
    ) -> anyhow::Result<Self> {
        let mut shares: Vec<Vec<IngestRequest>> = (0..streams).map(|_| Vec::new()).collect();
        for (n, events) in batches.into_iter().enumerate() {
            shares[n % streams].push(IngestRequest { sequence: n as u64, events, durability: 0 });
        }
        let mut clients = Vec::new();
        for share in shares {
            clients.push((IngestServiceClient::new(service.channel().await?), share));
        }
        Ok(Self(clients))
    }

    /// Sends everything, and returns how long each batch took to its acknowledgement.
    pub(crate) async fn send(self) -> anyhow::Result<Times> {
        let mut streams = JoinSet::new();
        for (client, share) in self.0 {
            streams.spawn(stream_share(client, share));
        }
        let mut times = Times::new();
        while let Some(done) = streams.join_next().await {
            times.add_all(&done??);
        }
        Ok(times)
    }
}

async fn stream_share(mut client: IngestServiceClient<Channel>, share: Vec<IngestRequest>) -> anyhow::Result<Times> {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let mut answers = client.ingest(ReceiverStream::new(requests)).await?.into_inner();
    let mut times = Times::new();
    let mut under_way = VecDeque::new();
    for request in share {
        if under_way.len() == AHEAD {
            answers.message().await?.context("the stream ended early")?;
            times.add(under_way.pop_front().map_or_else(Default::default, |sent: Instant| sent.elapsed()));
        }
        under_way.push_back(Instant::now());
        sender.send(request).await?;
    }
    drop(sender);
    while answers.message().await?.is_some() {
        times.add(under_way.pop_front().map_or_else(Default::default, |sent| sent.elapsed()));
    }
    Ok(times)
}

/// Inserts the blocks as they are, without tokens.
async fn insert_bare(client: &Client, blocks: Vec<Vec<u8>>, events: usize) -> anyhow::Result<f64> {
    let blocks = Arc::new(tokio::sync::Mutex::new(VecDeque::from(blocks)));
    let begun = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..STREAMS {
        let (client, blocks) = (client.clone(), Arc::clone(&blocks));
        connections.spawn(async move {
            loop {
                let Some(block) = blocks.lock().await.pop_front() else { return anyhow::Ok(()) };
                let statement = format!("INSERT INTO events ({}) FORMAT RowBinary", event_row::COLUMNS);
                let mut insert = client.insert_formatted_with(statement);
                // The same settings as the service's, but for deduplication.
                for (name, value) in INSERT_SETTINGS {
                    insert = insert.with_setting(name, value);
                }
                insert = insert.with_setting("insert_deduplicate", "0").with_setting("deduplicate_insert", "disable");
                insert.send(block.into()).await?;
                insert.end().await?;
            }
        });
    }
    while let Some(done) = connections.join_next().await {
        done??;
    }
    Ok(per_second(events, begun))
}

#[allow(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
fn micros_per_event(seconds: f64, events: usize) -> f64 {
    seconds * 1_000_000.0 / events as f64
}

/// So many events since then, a second.
#[allow(clippy::cast_precision_loss, reason = "event counts are far below 2^52")]
pub(crate) fn per_second(events: usize, begun: Instant) -> f64 {
    events as f64 / begun.elapsed().as_secs_f64()
}
