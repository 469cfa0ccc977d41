//! One event a call from many connections, against ClickHouse's own
//! asynchronous inserts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use reqwest::Url;
use serde_json::json;
use tokio::task::JoinSet;

use crate::connection::{GrpcConnection, HttpConnection};
use crate::events::{Generator, blocks};
use crate::report::{Report, Times, median};
use crate::service::BenchService;
use tallyhouse::clickhouse::client::Endpoint;
use tallyhouse::event_row;
use tallyhouse::transport::proto::ingest_service_server::SERVICE_NAME;
use tallyhouse::transport::proto::{Event, IngestBatchRequest, IngestBatchResponse};

/// Connections at a time.
const CONNECTIONS: u64 = 64;

/// A way to send one event.
#[derive(Clone, Copy)]
enum Way {
    Grpc,
    Rest,
    AsyncInsert,
}

/// Calls for `share` each way in each of `rounds` rounds.
pub(crate) async fn measure(
    service: &BenchService,
    rounds: u32,
    share: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    let mut times = [Times::new(), Times::new(), Times::new()];
    for round in 0..u64::from(rounds) {
        for (at, way) in [Way::Grpc, Way::AsyncInsert, Way::Rest].into_iter().enumerate() {
            // None pays for the merges that another has left behind.
            service.settled().await?;
            service.merged().await?;
            let (rate, taken) = call(service, way, share, round).await?;
            rates[at].push(rate);
            times[at].add_all(&taken);
        }
    }
    let [grpc, baseline, rest] = rates.map(median);
    report.add("single.requests_per_second", rest, "requests/s over REST");
    report.add("single.grpc_requests_per_second", grpc, "requests/s over gRPC");
    report.add("single.baseline_requests_per_second", baseline, "requests/s");
    report.add("single.ratio", rest / baseline, "× baseline (REST)");
    report.add("single.grpc_ratio", grpc / baseline, "× baseline (gRPC)");
    report.add("single.ack_p99_ratio", p99_ratio(&times[2], &times[1]), "× baseline (REST)");
    report.add("single.grpc_ack_p99_ratio", p99_ratio(&times[0], &times[1]), "× baseline (gRPC)");
    report.add_times("single.ack", &times[2]);
    report.add_times("single.grpc_ack", &times[0]);
    report.add_times("single.baseline_ack", &times[1]);
    Ok(())
}

/// How the slowest hundredth compares.
fn p99_ratio(ours: &Times, theirs: &Times) -> f64 {
    ours.millis(0.99) / theirs.millis(0.99)
}

async fn call(service: &BenchService, way: Way, share: Duration, round: u64) -> anyhow::Result<(f64, Times)> {
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut caller = Caller::new(service, way, round * CONNECTIONS + connection).await?;
        // The connection is made by its first call, which is not measured.
        callers.spawn(async move { caller.call().await.map(|_| caller) });
    }
    let mut connections = JoinSet::new();
    for caller in callers.join_all().await {
        connections.spawn(caller?.call_until(Arc::clone(&stop)));
    }
    let begun = Instant::now();
    tokio::time::sleep(share).await;
    stop.store(true, Ordering::Relaxed);
    let mut times = Times::new();
    while let Some(done) = connections.join_next().await {
        times.add_all(&done??);
    }
    #[allow(clippy::cast_precision_loss, reason = "calls are far below 2^52")]
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok((rate, times))
}

/// One connection and its events.
struct Caller {
    events: Generator,
    connection: Connection,
}

enum Connection {
    Grpc(GrpcConnection),
    Rest(HttpConnection),
    AsyncInsert(HttpConnection, Request<()>),
}

impl Caller {
    async fn new(service: &BenchService, way: Way, seed: u64) -> anyhow::Result<Self> {
        let connection = match way {
            Way::Grpc => {
                let method = format!("/{SERVICE_NAME}/IngestBatch");
                Connection::Grpc(GrpcConnection::open(&service.url, &method).await?)
            }
            Way::Rest => Connection::Rest(HttpConnection::open(&service.url).await?),
            Way::AsyncInsert => {
                let connection = HttpConnection::open(&service.baseline.url).await?;
                Connection::AsyncInsert(connection, async_insert(&service.baseline)?)
            }
        };
        // Seeds of their own, apart from those of the streams.
        Ok(Self { events: Generator::new(1_000_000 + seed), connection })
    }

    async fn call_until(mut self, stop: Arc<AtomicBool>) -> anyhow::Result<Times> {
        let mut times = Times::new();
        while !stop.load(Ordering::Relaxed) {
            times.add(self.call().await?);
        }
        Ok(times)
    }

    async fn call(&mut self) -> anyhow::Result<Duration> {
        let event = self.events.event(SystemTime::now(), Duration::from_secs(5));
        self.connection.send(event).await
    }
}

impl Connection {
    /// Sends one event; the time is that from the call to its answer.
    async fn send(&mut self, event: Event) -> anyhow::Result<Duration> {
        match self {
            Self::Grpc(connection) => {
                let request = IngestBatchRequest { events: vec![event], durability: 0, ..Default::default() };
                let begun = Instant::now();
                connection.call::<IngestBatchResponse>(&request).await?;
                Ok(begun.elapsed())
            }
            Self::Rest(connection) => {
                let body = serde_json::to_vec(&rest_event(&event))?;
                let request = Request::post("/events").header(CONTENT_TYPE, "application/json").body(body.into())?;
                let begun = Instant::now();
                connection.send(request, StatusCode::ACCEPTED).await?;
                Ok(begun.elapsed())
            }
            Self::AsyncInsert(connection, request) => {
                let row = blocks([&event], 1).pop().unwrap_or_default();
                let request = request.clone().map(|()| row.into());
                let begun = Instant::now();
                connection.send(request, StatusCode::OK).await?;
                Ok(begun.elapsed())
            }
        }
    }
}

/// An insert that ClickHouse puts together with others, without its rows.
fn async_insert(endpoint: &Endpoint) -> anyhow::Result<Request<()>> {
    let statement = format!("INSERT INTO {}.events ({}) FORMAT RowBinary", endpoint.database, event_row::COLUMNS);
    let query = [("query", statement.as_str()), ("async_insert", "1"), ("wait_for_async_insert", "1")];
    let url = Url::parse_with_params(&endpoint.url, query)?;
    Ok(Request::post(format!("/?{}", url.query().unwrap_or_default()))
        .header("X-ClickHouse-User", &endpoint.user)
        .header("X-ClickHouse-Key", endpoint.password.expose())
        .body(())?)
}

fn rest_event(event: &Event) -> serde_json::Value {
    let at = event.occurred_at.unwrap_or_default();
    let at = time::OffsetDateTime::from_unix_timestamp(at.seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
        + time::Duration::nanoseconds(at.nanos.into());
    json!({
        "event_id": event.event_id,
        "type": event.r#type,
        "campaign_id": event.campaign_id,
        "creative_id": event.creative_id,
        "source": event.source,
        "user_id": event.user_id,
        "occurred_at": at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
    })
}
