//! The composition root: makes every part, starts it, and stops it in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpSocket;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clickhouse::answers::Answers;
use crate::clickhouse::client::Endpoint;
use crate::clickhouse::engine::Engine;
use crate::clickhouse::migrations::migrate;
use crate::clickhouse::ping::Pinger;
use crate::clickhouse::store::ClickHouseStore;
use crate::config::Config;
use crate::ingest::clock::ArrivalClock;
use crate::ingest::fill::fill;
use crate::ingest::fingerprint::Fingerprinter;
use crate::ingest::forwarder::{Forwarder, ForwarderSettings};
use crate::ingest::index::Index;
use crate::ingest::log::{Log, LogSettings, OpenError};
use crate::ingest::outcome::Outcomes;
use crate::ingest::pipeline::{Pipeline, PipelineSettings};
use crate::ingest::store::EventStore;
use crate::ingest::stored::StoredHours;
use crate::query::{CacheSettings, Queries};
use crate::telemetry::{Metrics, OutcomeLog};
use crate::transport::{self, Application, LiveTail};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Pause between attempts to reach ClickHouse at start.
const START_PAUSE: Duration = Duration::from_millis(200);
/// Attempts at start between two log lines.
const ATTEMPTS_PER_LINE: u32 = 25;
/// Shortest time between two sweeps of the index.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is not safe to run with.
    #[error("{0}")]
    Refused(String),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] OpenError),
    /// A part failed.
    #[error("{0}")]
    Part(String),
}

/// Runs the service with an embedded ClickHouse, or the one at a URL, for
/// people to try: on loopback, without authentication. Ends on SIGTERM and
/// Ctrl-C.
///
/// # Errors
/// See [`run`].
pub async fn run_dev(config: Config) -> Result<(), ServerError> {
    check_is_safe(&config)?;
    let socket = bind(config.listen)?;
    let shutdown = shutdown_on_signal()?;
    if !config.clickhouse_url.is_empty() {
        let endpoint = Endpoint::configured(&config);
        return run(config, socket, endpoint.clone(), shutdown, |address| welcome(address, &endpoint)).await;
    }
    let Some(engine) = shutdown.run_until_cancelled(Engine::start(&config)).await else { return Ok(()) };
    let engine = engine.map_err(|error| ServerError::Part(error.to_string()))?;
    let endpoint = Endpoint::of_engine(engine.endpoint(), &config);
    let ran = run(config, socket, endpoint.clone(), shutdown, |address| welcome(address, &endpoint)).await;
    engine.stop().await;
    ran
}

/// Runs the service against a ClickHouse server. Ends on SIGTERM and Ctrl-C.
///
/// # Errors
/// See [`run`].
pub async fn run_serve(config: Config) -> Result<(), ServerError> {
    check_has_url(&config)?;
    check_is_safe(&config)?;
    let socket = bind(config.listen)?;
    let endpoint = Endpoint::configured(&config);
    let ready = |address| tracing::info!(%address, "serving gRPC, grpc-web and REST");
    run(config, socket, endpoint, shutdown_on_signal()?, ready).await
}

/// Brings the tables of a ClickHouse server up to date.
///
/// # Errors
/// When there is no server, or it refuses.
pub async fn run_migrate(config: Config) -> Result<(), ServerError> {
    check_has_url(&config)?;
    let migrated = migrate(&Endpoint::configured(&config), config.retention_days).await;
    migrated.map_err(|error| ServerError::Part(error.to_string()))
}

/// Says where everything is, and what to try.
fn welcome(address: SocketAddr, endpoint: &Endpoint) {
    let url = &endpoint.url;
    println!(
        "Tallyhouse is ready.\n\n  \
         gRPC, grpc-web, REST   http://{address}\n  \
         routes                 http://{address}/docs\n  \
         ClickHouse, for SQL    {url}  (user analyst, read-only; {url}/play?user=analyst)\n\n\
         In another terminal:\n\n  \
         make demo              sends a sample and shows what was counted\n  \
         tallyhouse send FILE   sends your own events, one JSON object a line\n  \
         tallyhouse --help      all commands\n\n\
         Ctrl-C stops it."
    );
}

/// Cancelled by the first SIGTERM or Ctrl-C.
fn shutdown_on_signal() -> Result<CancellationToken, ServerError> {
    let shutdown = CancellationToken::new();
    let failed = |error: std::io::Error| ServerError::Part(format!("cannot listen for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(shutdown)
}

fn check_has_url(config: &Config) -> Result<(), ServerError> {
    if config.clickhouse_url.is_empty() {
        let message = "name a ClickHouse server: set TALLYHOUSE_CLICKHOUSE_URL or --clickhouse-url";
        return Err(ServerError::Refused(message.to_owned()));
    }
    Ok(())
}

/// Takes the configured port, without opening it: whoever connects before the
/// service is ready is refused, and nobody else can take it meanwhile.
///
/// # Errors
/// Says why the port cannot be had.
pub fn bind(address: SocketAddr) -> Result<TcpSocket, ServerError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bind().map_err(|source| ServerError::Listen { address, source })
}

/// Without authentication, whoever reaches the port may read and write
/// everything: only this machine may.
///
/// # Errors
/// Says what to change.
pub fn check_is_safe(config: &Config) -> Result<(), ServerError> {
    if config.listen.ip().is_loopback() {
        return Ok(());
    }
    Err(ServerError::Refused(format!(
        "listen is {}, which others can reach, and this version has no authentication: listen on 127.0.0.1, behind \
         something that authenticates",
        config.listen
    )))
}

/// Runs the service against a ClickHouse until `shutdown`. `ready` is called
/// with the address once the port is open.
///
/// # Errors
/// When a part cannot be started. What was acknowledged stays in the log.
pub async fn run(
    config: Config,
    socket: TcpSocket,
    endpoint: Endpoint,
    shutdown: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), ServerError> {
    let clock = Arc::new(ArrivalClock::default());
    let log = Arc::new(open_log(&config, &clock).await?);
    let store: Arc<dyn EventStore> = Arc::new(ClickHouseStore::new(&endpoint));
    let index = Arc::new(Index::new(config.index_ids_max));
    let prints = Fingerprinter::random();

    let recovery = recover(&config, &endpoint, &index, prints, &log, &*store);
    match shutdown.run_until_cancelled(recovery).await {
        Some(recovered) => recovered?,
        None => return Ok(()),
    }

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let stored_hours = Arc::new(StoredHours::default());
    let forwarder = Forwarder::new(
        forwarder_settings(&config),
        Arc::clone(&log),
        Arc::clone(&index),
        Arc::clone(&store),
        Arc::clone(&stored_hours),
    );
    forwarder.start(&tasks, &stop);
    start_sweeper(&tasks, &stop, &index, &log);
    let clickhouse_up = Pinger::new(&endpoint.url).map_err(|error| ServerError::Part(error.to_string()))?.watch();

    let metrics = Arc::new(Metrics::new().map_err(ServerError::Part)?);
    metrics.observe(&log, &index);
    let tail = Arc::new(LiveTail::new(&config));
    let outcomes = Outcomes::new(vec![
        Arc::clone(&metrics) as Arc<_>,
        Arc::new(OutcomeLog::default()),
        Arc::clone(&tail) as Arc<_>,
    ]);
    let pipeline =
        Pipeline::new(pipeline_settings(&config), Arc::clone(&clock), prints, index, Arc::clone(&log), store, outcomes);
    let queries = Queries::new(
        Answers::new(&endpoint),
        cache_settings(&config),
        config.queries_in_flight_max,
        Duration::from_millis(config.query_wait_ms_max),
        Arc::clone(&clock),
        Arc::clone(log.segments()),
        stored_hours,
    );
    let shutdown_wait = config.shutdown_wait();
    let address = config.listen;
    let app =
        Arc::new(Application { config, clock, pipeline, queries, log: Arc::clone(&log), tail, metrics, clickhouse_up });

    let listen_failed = |source| ServerError::Listen { address, source };
    let listener = socket.listen(BACKLOG).map_err(listen_failed)?;
    ready(listener.local_addr().map_err(listen_failed)?);
    let served = transport::serve(app, listener, shutdown).await;

    // Whatever was acknowledged is on disk. Now ClickHouse gets what it can
    // take in the time; the rest is forwarded by the next run.
    log.shut().await;
    if tokio::time::timeout(shutdown_wait, forwarder.drained()).await.is_err() {
        tracing::warn!(segments = log.segments().backlog(), "stopping with events that only the log has");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    served.map_err(|error| ServerError::Part(error.to_string()))
}

async fn open_log(config: &Config, clock: &Arc<ArrivalClock>) -> Result<Log, ServerError> {
    let settings = LogSettings {
        dir: config.data_dir.join("log"),
        bytes_max: config.log_bytes_max,
        free_bytes_min: config.log_free_bytes_min,
        segment_rows_max: config.segment_rows_max,
        segment_bytes_max: config.segment_bytes_max,
        segment_linger: Duration::from_millis(config.segment_linger_ms),
        inserts_in_flight_max: config.inserts_in_flight_max,
    };
    let clock = Arc::clone(clock);
    let opened = tokio::task::spawn_blocking(move || Log::open(settings, clock)).await;
    Ok(opened.map_err(|error| ServerError::Part(error.to_string()))??)
}

/// Waits for ClickHouse, brings its schema up to date, and fills the index:
/// from then on the service knows what it must not count again.
async fn recover(
    config: &Config,
    endpoint: &Endpoint,
    index: &Arc<Index>,
    prints: Fingerprinter,
    log: &Arc<Log>,
    store: &dyn EventStore,
) -> Result<(), ServerError> {
    for attempt in 0_u32.. {
        let attempted = async {
            migrate(endpoint, config.retention_days).await.map_err(|error| error.to_string())?;
            fill(index, prints, log, store, config.index_ids_max).await.map_err(|error| error.to_string())
        };
        match attempted.await {
            Ok(()) => break,
            Err(error) if attempt % ATTEMPTS_PER_LINE == 0 => {
                tracing::warn!(error, "waiting for ClickHouse before opening the port");
            }
            Err(_) => {}
        }
        tokio::time::sleep(START_PAUSE).await;
    }
    let (ids, unstored) = (index.ids(), log.segments().rows());
    tracing::info!(ids, unstored, "recovered");
    Ok(())
}

fn start_sweeper(tasks: &TaskTracker, stop: &CancellationToken, index: &Arc<Index>, log: &Arc<Log>) {
    let (index, log, stop) = (Arc::clone(index), Arc::clone(log), stop.clone());
    let sweeps = async move {
        loop {
            index.sweep_due().await;
            let (index, log) = (Arc::clone(&index), Arc::clone(&log));
            let swept = tokio::task::spawn_blocking(move || index.sweep(|| log.segments().tags())).await;
            if let Err(error) = swept {
                tracing::error!(%error, "a sweep of the index failed");
            }
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
    };
    tasks.spawn(async move { stop.run_until_cancelled(sweeps).await });
}

const fn forwarder_settings(config: &Config) -> ForwarderSettings {
    ForwarderSettings {
        inserts_in_flight_max: config.inserts_in_flight_max,
        insert_wait_max: Duration::from_millis(config.insert_wait_ms_max),
        backoff_min: Duration::from_millis(config.insert_backoff_ms_min),
        backoff_max: Duration::from_millis(config.insert_backoff_ms_max),
    }
}

fn pipeline_settings(config: &Config) -> PipelineSettings {
    PipelineSettings {
        limits: config.event_limits(),
        batch_events_max: config.batch_events_max,
        bytes_in_flight_max: config.ingest_bytes_in_flight_max,
        wait_max: Duration::from_millis(config.ingest_wait_ms_max),
        stored_wait_max: Duration::from_millis(config.stored_wait_ms_max),
    }
}

const fn cache_settings(config: &Config) -> CacheSettings {
    CacheSettings {
        bytes_max: config.cache_bytes_max,
        open_max: Duration::from_millis(config.cache_open_ms_max),
        closed_max: Duration::from_millis(config.cache_closed_ms_max),
    }
}
