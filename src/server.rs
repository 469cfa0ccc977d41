//! The composition root: constructs all components, starts them, and stops them in order.

mod deliveries;
mod health_checks;
mod id_ledger;
mod ports;
mod recovery;
mod ticketing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{AuditSettings, Auditor};
use crate::clickhouse::audit::AuditStore;
use crate::clickhouse::cancel::QueryCanceller;
use crate::clickhouse::client::Endpoint;
use crate::clickhouse::daily_metrics::DailyMetrics;
use crate::clickhouse::directory::DirectoryStore;
use crate::clickhouse::engine::SandboxStatus;
use crate::clickhouse::event_types::EventTypeStore;
use crate::clickhouse::ping::Pinger;
use crate::clickhouse::query_limiter::{QueryLimiter, QueryLimiterSettings};
use crate::clickhouse::query_store::QueryStore;
use crate::clickhouse::retention::RetentionStore;
use crate::clickhouse::store::ClickHouseStore;
use crate::clickhouse::write_keys::WriteKeyStore;
use crate::clock::ArrivalClock;
use crate::config::Config;
use crate::data_dir::DataDirError;
use crate::deliveries::stored_events::ClickHouseEvents;
use crate::deliveries::subscriptions::SubscriptionSources;
use crate::directory::{AllOrganizations, Directory};
use crate::event_intake::EventIntake;
use crate::event_store::EventStore;
use crate::event_store::insert_gate::InsertGate;
use crate::event_types::{EventTypeSettings, EventTypes};
use crate::health::{Health, Reason, ReasonCode};
use crate::hour_versions::HourVersions;
use crate::idempotency::{IdempotentIngest, KeyBounds, KeyStore};
use crate::ingest::fingerprint::Fingerprinter;
use crate::ingest::forwarder::{Forwarder, ForwarderSettings};
use crate::ingest::index::Index;
use crate::ingest::ledger_keeper::{LedgerKeeper, LedgerKeeperSettings};
use crate::ingest::lost_ids::LostIds;
use crate::ingest::outcome::Outcomes;
use crate::ingest::pipeline::{Pipeline, PipelineSettings};
use crate::limits::{LimitSettings, RateLimits};
use crate::log::dedup_window::CurrentDedupWindow;
use crate::log::{DiskLog, EventLog, Holders, LogSettings, OpenError, ReaderBounds};
use crate::private_files;
use crate::query::{CacheSettings, Queries};
use crate::retention::{Retention, RetentionSettings};
use crate::sql_gateway::Gateway;
use crate::telemetry::{Metrics, OutcomeLog};
use crate::transport::{self, Application, Callers, Cursors, LiveTail, Tls, Website};
use crate::write_keys::WriteKeys;
use deliveries::{Deliveries, StartedDeliveries};
pub use ports::{Addresses, bind};
use ticketing::Ticketing;
pub use ticketing::check_has_administrators;

use health_checks::Checked;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The configuration is not safe to run with.
    #[error("{0}")]
    Refused(String),
    /// The port cannot be opened.
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
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A part failed.
    #[error("{0}")]
    Part(String),
}

/// Without authentication, every caller can read and write everything, so only loopback addresses
/// are allowed.
///
/// # Errors
/// Says what to change.
pub fn check_is_safe(config: &Config) -> Result<(), ServerError> {
    let sql_is_open = config.sql_address().is_some_and(|address| !address.ip().is_loopback());
    if sql_is_open && !config.has_authentication() {
        let message = format!(
            "sql_listen is {}, which others can reach, and there is no authentication: set one of auth_hs256_secret, \
             auth_jwks_file and auth_jwks_url, or listen on 127.0.0.1",
            config.sql_listen
        );
        return Err(ServerError::Refused(message));
    }
    if config.listen.ip().is_loopback() || config.has_authentication() {
        return Ok(());
    }
    Err(ServerError::Refused(format!(
        "listen is {}, which others can reach, and there is no authentication: set one of auth_hs256_secret, \
         auth_jwks_file and auth_jwks_url, or listen on 127.0.0.1",
        config.listen
    )))
}

/// The port where analysts reach ClickHouse, see [`crate::sql_gateway`].
#[derive(Debug)]
pub struct SqlPort {
    /// It, open already.
    pub listener: TcpListener,
    /// The sandbox status of the embedded engine; none for another ClickHouse server. Only for the
    /// embedded one, the service creates the views of analysts.
    pub engine_sandbox: Option<SandboxStatus>,
}

/// Runs the service against a ClickHouse until `shutdown`. `ready` is called with the address once
/// the port is open. `reader` reads on behalf of organizations. Analysts are served on the port for
/// SQL, if there is one.
///
/// # Errors
/// If a component cannot be started. Acknowledged events stay in the log.
pub async fn run(
    config: Config,
    socket: TcpSocket,
    endpoint: Endpoint,
    reader: Endpoint,
    sql: Option<SqlPort>,
    shutdown: CancellationToken,
    ready: impl FnOnce(Addresses) + Send,
) -> Result<(), ServerError> {
    let ticketing_socket = config.ticketing_listen().map(|address| Ok::<_, ServerError>((address, bind(address)?)));
    let ticketing_socket = ticketing_socket.transpose()?;
    let clock = Arc::new(ArrivalClock::new(config.clock_bounds()));
    let callers = Callers::open(&config, &clock).await.map_err(|error| ServerError::Refused(error.to_string()))?;
    let website = Website::open(&config.dashboard_dir).map_err(|error| ServerError::Refused(error.to_string()))?;
    let tls = Tls::open(&config).await.map_err(|error| ServerError::Refused(error.to_string()))?;
    // Before anything that measures itself.
    let metrics = Arc::new(Metrics::new().map_err(ServerError::Part)?);
    let deliveries = Deliveries::open(&config).await?;
    let ids_above = deliveries.last_segment()?;
    let mut parts = Parts::new(&config, &endpoint, &reader, clock, ids_above).await?;
    let held = deliveries.hold(&*parts.log)?;
    parts.log.readers_added();
    parts.website = website.map(Arc::new);
    let callers = callers.accepting(Arc::clone(&parts.write_keys));
    parts.engine_sandbox = sql.as_ref().and_then(|sql| sql.engine_sandbox);
    let ticketing = Ticketing::open(&config, &parts.clock).await?;
    let recovery = recovery::recover(&config, &endpoint, &parts);
    let index = match shutdown.run_until_cancelled(recovery).await {
        Some(recovered) => recovered?,
        None => return Ok(()),
    };

    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let lost_ids =
        LostIds::new(Arc::clone(&index), Arc::clone(&parts.log), Arc::clone(&parts.store), parts.fingerprinter);
    let forwarder = parts.forwarder(&config, &lost_ids);
    forwarder.start(&tasks, &stop);
    watch_clock(&tasks, &stop, &parts);
    let keeper = parts.ledger_keeper(&config, &index, lost_ids);
    keeper.start(&tasks, &stop);
    keep_keys_swept(&tasks, &stop, &parts);
    parts.retention.start_background(&tasks, &stop);
    keep_types_fresh(&tasks, &stop, &parts, Duration::from_secs(config.event_types_refresh_seconds));
    callers.keep_keys_fresh(&tasks, &stop);
    keep_write_keys_fresh(&tasks, &stop, &parts);
    keep_certificate_fresh(&tasks, &stop, tls.as_ref());
    if let Some(sql) = sql {
        let gateway = Gateway::open(&config, &endpoint, &tasks);
        let gateway =
            gateway.map_err(|error| ServerError::Part(format!("the port for SQL cannot be opened: {error}")))?;
        gateway.serve(sql.listener, &shutdown);
        parts.sql = Some(gateway);
    }

    let (address, shutdown_wait) = (config.listen, config.shutdown_wait());
    let listen_failed = |source| ServerError::Listen { address, source };
    let log = Arc::clone(&parts.log);
    let (audits, ends) = (config.audit_background, stop.child_token());
    if let Some(ticketing) = &ticketing {
        ticketing.start(&config, &tasks, &stop);
    }
    let pipeline = parts.pipeline(&config, &index, &metrics);
    let sources = parts.subscription_sources(&config, &reader);
    let delivered = deliveries.start(&config, sources, held, &pipeline.ingest, &parts.clock).await?;
    let engine = delivered.pipeline.as_ref().map(|(_, engine)| engine.clone());
    delivered.operator_socket(&config, &log).start(&tasks, &stop);
    let app = parts.application(config, index, &endpoint, &reader, callers, ticketing, pipeline, delivered, metrics)?;
    if let Some(pipeline) = &app.event_pipeline {
        pipeline.start(&tasks, &stop);
    }
    app.subscriptions.observe(&tasks, &stop);
    let subscriptions = Arc::clone(&app.subscriptions);
    if audits {
        app.auditor.start_background(&tasks, &ends);
    }
    let listener = socket.listen(BACKLOG).map_err(listen_failed)?;
    let ticketing_listener = ticketing_socket
        .map(|(address, socket)| socket.listen(BACKLOG).map_err(|source| ServerError::Listen { address, source }));
    let ticketing_listener = ticketing_listener.transpose()?;
    ready(Addresses {
        main: listener.local_addr().map_err(listen_failed)?,
        ticketing: ticketing_listener.as_ref().and_then(|listener| listener.local_addr().ok()),
    });
    let served = transport::serve(app, listener, ticketing_listener, tls, shutdown).await;

    // Whatever was acknowledged is on disk. Now ClickHouse gets what it can
    // take in the time; the rest is forwarded by the next run.
    log.shut().await;
    if let Some(engine) = engine {
        engine.stop().await;
    }
    subscriptions.stop().await;
    if tokio::time::timeout(shutdown_wait, forwarder.drained()).await.is_err() {
        tracing::warn!(segments = log.segments().backlog(), "stopping with events that are not in ClickHouse yet");
    }
    // What the ledger has, the next start need not read from the log.
    if tokio::time::timeout(shutdown_wait, keeper.write()).await.is_err() {
        tracing::warn!("stopping with ids that only the log has");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    served.map_err(|error| ServerError::Part(error.to_string()))
}

/// The path of events, and what belongs to it.
struct IngestParts {
    ingest: Arc<Pipeline>,
    tail: Arc<LiveTail>,
    limits: Arc<RateLimits>,
}

/// The components of ingest, queries and transports.
struct Parts {
    clock: Arc<ArrivalClock>,
    fingerprinter: Fingerprinter,
    log: Arc<dyn EventLog>,
    store: Arc<dyn EventStore>,
    hour_versions: Arc<HourVersions>,
    gate: Arc<InsertGate>,
    dedup_window: Arc<CurrentDedupWindow>,
    types: Arc<EventTypes>,
    retention: Arc<Retention>,
    calls: Arc<IdempotentIngest>,
    /// See [`SqlPort::engine_sandbox`].
    engine_sandbox: Option<SandboxStatus>,
    limiter: Arc<QueryLimiter>,
    sql: Option<Gateway>,
    website: Option<Arc<Website>>,
    write_keys: Arc<WriteKeys>,
}

impl Parts {
    /// With the log as a former run left it.
    async fn new(
        config: &Config,
        endpoint: &Endpoint,
        reader: &Endpoint,
        clock: Arc<ArrivalClock>,
        ids_above: u128,
    ) -> Result<Self, ServerError> {
        let dedup_window = Arc::default();
        let limiter = Arc::new(query_limiter(config, endpoint));
        let look_ups = Arc::new(look_up_limiter(config, endpoint));
        let log: Arc<dyn EventLog> = Arc::new(open_log(config, &clock, &dedup_window, ids_above).await?);
        let former = log.segments().list().into_iter().map(|segment| segment.id);
        let gate = Arc::new(InsertGate::new(former));
        Ok(Self {
            retention: Retention::new(
                retention_settings(config),
                RetentionStore::new(endpoint),
                Arc::clone(&gate),
                Arc::clone(log.segments()),
                Arc::clone(&clock),
            ),
            gate,
            calls: Arc::new(IdempotentIngest::new(open_keys(config).await?, Arc::clone(&clock))),
            types: Arc::new(event_types(config, endpoint, reader, &limiter, &clock)),
            fingerprinter: open_fingerprinter(config)?,
            log,
            store: Arc::new(ClickHouseStore::new(endpoint, look_ups)),
            hour_versions: Arc::default(),
            dedup_window,
            write_keys: Arc::new(WriteKeys::new(
                WriteKeyStore::new(endpoint),
                Arc::clone(&limiter),
                Arc::clone(&clock),
            )),
            clock,
            engine_sandbox: None,
            limiter,
            sql: None,
            website: None,
        })
    }

    fn forwarder(&self, config: &Config, lost_ids: &Arc<LostIds>) -> Arc<Forwarder> {
        Forwarder::new(
            forwarder_settings(config),
            Arc::clone(&self.log),
            Arc::clone(lost_ids),
            Arc::clone(&self.store),
            Arc::clone(&self.hour_versions),
            Arc::clone(&self.gate),
            Arc::clone(&self.dedup_window),
        )
    }

    fn ledger_keeper(&self, config: &Config, index: &Arc<Index>, lost_ids: Arc<LostIds>) -> Arc<LedgerKeeper> {
        let settings = LedgerKeeperSettings {
            write_pause: Duration::from_millis(config.ledger_write_ms_max),
            retained_bytes_max: config.ledger_retained_bytes_max,
            retention_days: config.retention_days,
        };
        let (log, store, clock) = (Arc::clone(&self.log), Arc::clone(&self.store), Arc::clone(&self.clock));
        LedgerKeeper::new(settings, Arc::clone(index), log, store, self.fingerprinter, clock, lost_ids)
    }

    /// Where subscriptions read events.
    fn subscription_sources(&self, config: &Config, reader: &Endpoint) -> SubscriptionSources {
        let events = ClickHouseEvents::new(
            QueryStore::new(reader),
            Arc::clone(&self.limiter),
            Arc::clone(&self.retention),
            config.retention_days,
            Arc::clone(&self.clock),
        );
        SubscriptionSources { log: Arc::clone(&self.log), events: Arc::new(events), arrivals: Arc::clone(&self.clock) }
    }

    /// The path of events.
    fn pipeline(&self, config: &Config, index: &Arc<Index>, metrics: &Arc<Metrics>) -> IngestParts {
        let tail = Arc::new(LiveTail::new(config));
        let outcomes = Outcomes::new(vec![
            Arc::clone(metrics) as Arc<_>,
            Arc::new(OutcomeLog::default()),
            Arc::clone(&tail) as Arc<_>,
        ]);
        let limits = RateLimits::new(limit_settings(config));
        let ingest = Arc::new(Pipeline::new(
            pipeline_settings(config),
            Arc::clone(&self.clock),
            self.fingerprinter,
            Arc::clone(index),
            Arc::clone(&self.log),
            Arc::clone(&self.store),
            Arc::clone(&self.types),
            Arc::clone(&self.retention),
            outcomes,
            Arc::clone(&limits),
        ));
        IngestParts { ingest, tail, limits }
    }

    /// The application that transports call.
    #[expect(clippy::too_many_arguments, reason = "every part is another")]
    fn application(
        self,
        config: Config,
        index: Arc<Index>,
        endpoint: &Endpoint,
        reader: &Endpoint,
        callers: Callers,
        ticketing: Option<Ticketing>,
        pipeline: IngestParts,
        delivered: StartedDeliveries,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Application>, ServerError> {
        let IngestParts { ingest: pipeline, tail, limits } = pipeline;
        let cursors = Cursors::open(&config)
            .map_err(|error| ServerError::Part(format!("the key of cursors cannot be had: {error}")))?;
        metrics.observe(&*self.log, &index, &self.clock);
        let auditor = Auditor::new(
            audit_settings(&config),
            AuditStore::new(endpoint),
            Arc::clone(&self.limiter),
            self.gate,
            Arc::clone(self.log.segments()),
            Arc::clone(&self.hour_versions),
            Arc::clone(&self.retention),
            Arc::clone(&self.clock),
            Arc::clone(&metrics),
        );
        let directory = Directory::new(
            DirectoryStore::new(reader, endpoint),
            Arc::clone(&self.types),
            Arc::clone(&self.limiter),
            Arc::clone(&self.clock),
            Arc::clone(self.log.segments()),
            all_organizations(&config),
        );
        let queries = Queries::new(
            QueryStore::new(reader),
            DailyMetrics::new(reader, endpoint),
            cache_settings(&config),
            self.limiter,
            Arc::clone(&self.clock),
            Arc::clone(self.log.segments()),
            self.hour_versions,
        );
        metrics.observe_limits(&limits);
        let health = Arc::new(Health::default());
        let StartedDeliveries { subscriptions, pipeline: event_pipeline, .. } = delivered;
        let event_pipeline = event_pipeline.map(|(pipeline, _)| pipeline);
        if let Some(pipeline) = &event_pipeline {
            health_checks::register_pipeline(pipeline, &health);
        }
        health_checks::register_subscriptions(&subscriptions, &health);
        metrics.observe_deliveries(&subscriptions);
        let intake = Arc::new(EventIntake::new(Arc::clone(&pipeline), Arc::clone(&self.calls), Arc::clone(&limits)));
        if let Some(ticketing) = &ticketing {
            ticketing.observe(&config, &metrics, &health);
        }
        let ticketing = ticketing.map(|ticketing| ticketing.api(&config, &callers, &intake, &self.clock));
        let pinger = Pinger::new(&endpoint.url).map_err(|error| ServerError::Part(error.to_string()))?;
        let clickhouse_up = pinger.watch();
        metrics.observe_clickhouse(clickhouse_up.clone());
        let checked = Checked {
            log: Arc::clone(&self.log),
            index,
            clock: Arc::clone(&self.clock),
            calls: self.calls,
            buffer_refusals: pipeline.buffer_refusals(),
            clickhouse_up: clickhouse_up.clone(),
        };
        checked.register(&health);
        let lack_keys = callers.lack_keys();
        health.register(move || {
            let message = "no keys for tokens have been read from auth_jwks_url yet";
            lack_keys().then(|| Reason::new(ReasonCode::AuthKeysMissing, message))
        });
        metrics.observe_health(&health);
        let app = Arc::new(Application {
            config,
            clock: self.clock,
            callers,
            intake,
            event_types: self.types,
            limits,
            queries,
            directory,
            write_keys: self.write_keys,
            cursors,
            auditor,
            log: self.log,
            tail,
            ticketing,
            event_pipeline,
            subscriptions,
            health,
            metrics,
            clickhouse_up,
            engine_sandbox: self.engine_sandbox,
            sql: self.sql,
            website: self.website,
        });
        Ok(app)
    }
}

fn all_organizations(config: &Config) -> AllOrganizations {
    match config.has_authentication() {
        false => AllOrganizations::OpenToAll,
        true => AllOrganizations::OperatorOnly(config.operator()),
    }
}

async fn open_log(
    config: &Config,
    clock: &Arc<ArrivalClock>,
    dedup_window: &Arc<CurrentDedupWindow>,
    ids_above: u128,
) -> Result<DiskLog, ServerError> {
    let settings = LogSettings {
        dir: config.data_dir.join("log"),
        bytes_max: config.log_bytes_max,
        free_bytes_min: config.log_free_bytes_min,
        kept_bytes_max: config.log_kept_bytes_max,
        segment_rows_max: config.segment_rows_max,
        segment_bytes_max: config.segment_bytes_max,
        segment_linger: Duration::from_millis(config.segment_linger_ms),
        inserts_in_flight_max: config.inserts_in_flight_max,
        holders: Holders::LEDGER,
        ids_above,
        reader_bounds: ReaderBounds { bounded_bytes_max: config.subscription_held_bytes_max },
    };
    let (clock, dedup_window) = (Arc::clone(clock), Arc::clone(dedup_window));
    let opened = tokio::task::spawn_blocking(move || DiskLog::open(settings, clock, dedup_window)).await;
    Ok(opened.map_err(|error| ServerError::Part(error.to_string()))??)
}

/// Opens the store of idempotency keys.
async fn open_keys(config: &Config) -> Result<KeyStore, ServerError> {
    let failed = |error: std::io::Error| ServerError::Part(error.to_string());
    private_files::create_dir(&config.data_dir).map_err(failed)?;
    let path = config.data_dir.join("idempotency.redb");
    let bounds = KeyBounds {
        keys_max: config.idempotency_keys_max,
        bytes_max: config.idempotency_bytes_max,
        share_percent: config.share_percent(),
    };
    let opened = tokio::task::spawn_blocking({
        let path = path.clone();
        move || KeyStore::open(&path, bounds)
    });
    let opened = opened.await.map_err(|error| ServerError::Part(error.to_string()))?;
    opened.map_err(|error| {
        let path = path.display();
        ServerError::Part(format!("cannot open {path}: {error}; without the file, all idempotency keys are forgotten"))
    })
}

/// The key that ids are fingerprinted with, made at the first start.
fn open_fingerprinter(config: &Config) -> Result<Fingerprinter, ServerError> {
    let path = config.data_dir.join("ledger-key");
    Fingerprinter::open(&path)
        .map_err(|error| ServerError::Part(format!("the key of the id ledger, {}: {error}", path.display())))
}

fn watch_clock(tasks: &TaskTracker, stop: &CancellationToken, parts: &Parts) {
    let (clock, stop) = (Arc::clone(&parts.clock), stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(clock.keep_watched()).await });
}

fn keep_keys_swept(tasks: &TaskTracker, stop: &CancellationToken, parts: &Parts) {
    let (calls, stop) = (Arc::clone(&parts.calls), stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(calls.keep_swept()).await });
}

fn keep_types_fresh(tasks: &TaskTracker, stop: &CancellationToken, parts: &Parts, pause: Duration) {
    let (types, stop) = (Arc::clone(&parts.types), stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(types.keep_fresh(pause)).await });
}

fn keep_write_keys_fresh(tasks: &TaskTracker, stop: &CancellationToken, parts: &Parts) {
    let (keys, stop) = (Arc::clone(&parts.write_keys), stop.clone());
    tasks.spawn(async move { stop.run_until_cancelled(keys.keep_fresh()).await });
}

fn keep_certificate_fresh(tasks: &TaskTracker, stop: &CancellationToken, tls: Option<&Arc<Tls>>) {
    let Some(tls) = tls.cloned() else { return };
    let stop = stop.clone();
    tasks.spawn(async move { stop.run_until_cancelled(tls.keep_fresh()).await });
}

/// The places of everything that callers and the service read.
fn query_limiter(config: &Config, endpoint: &Endpoint) -> QueryLimiter {
    let settings = QueryLimiterSettings {
        in_flight_max: config.queries_in_flight_max,
        share_percent: config.share_percent(),
        wait_max: Duration::from_millis(config.query_wait_ms_max),
    };
    QueryLimiter::new(settings, QueryCanceller::new(endpoint))
}

/// The places of what ingest reads: a flood of queries must not leave events
/// undecided.
fn look_up_limiter(config: &Config, endpoint: &Endpoint) -> QueryLimiter {
    let settings = QueryLimiterSettings {
        in_flight_max: config.look_ups_in_flight_max,
        share_percent: config.share_percent(),
        wait_max: Duration::from_millis(config.look_up_wait_ms_max),
    };
    QueryLimiter::new(settings, QueryCanceller::new(endpoint))
}

fn event_types(
    config: &Config,
    endpoint: &Endpoint,
    reader: &Endpoint,
    limiter: &Arc<QueryLimiter>,
    clock: &Arc<ArrivalClock>,
) -> EventTypes {
    let settings = EventTypeSettings {
        type_bytes_max: config.type_bytes_max,
        types_max: config.event_types_max,
        versions_max: config.event_type_versions_max,
        properties_bytes_max: config.properties_bytes_max,
        threads_max: config.schema_threads_max,
        compiled_bytes_max: config.schema_bytes_max,
        wait_max: Duration::from_millis(config.schema_wait_ms_max),
        share_percent: config.share_percent(),
    };
    let store = EventTypeStore::new(endpoint, reader, Duration::from_millis(config.query_wait_ms_max));
    EventTypes::new(settings, store, Arc::clone(limiter), Arc::clone(clock))
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
        share_percent: config.share_percent(),
        wait_max: Duration::from_millis(config.ingest_wait_ms_max),
        look_up_wait_max: Duration::from_millis(config.look_up_wait_ms_max),
        stored_wait_max: Duration::from_millis(config.stored_wait_ms_max),
    }
}

fn retention_settings(config: &Config) -> RetentionSettings {
    RetentionSettings {
        retention_days: config.retention_days,
        check: Duration::from_secs(config.retention_check_seconds.into()),
    }
}

const fn limit_settings(config: &Config) -> LimitSettings {
    LimitSettings {
        org_events_per_second: config.rate_limit_org_events_per_second,
        user_events_per_second: config.rate_limit_user_events_per_second,
        org_queries_per_second: config.rate_limit_org_queries_per_second,
        window_seconds: config.rate_limit_window_seconds,
        subjects_max: config.rate_limit_users_max,
    }
}

const fn audit_settings(config: &Config) -> AuditSettings {
    AuditSettings {
        wait_max: Duration::from_millis(config.audit_wait_ms_max),
        hold_max: Duration::from_millis(config.audit_hold_ms_max),
        after: Duration::from_secs(config.audit_after_minutes as u64 * 60),
        pause: Duration::from_millis(config.audit_pause_ms),
        hours: config.audit_hours,
        repair: config.audit_repair,
    }
}

const fn cache_settings(config: &Config) -> CacheSettings {
    CacheSettings {
        bytes_max: config.cache_bytes_max,
        open_max: Duration::from_millis(config.cache_open_ms_max),
        closed_max: Duration::from_millis(config.cache_closed_ms_max),
    }
}
