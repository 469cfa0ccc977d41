//! `tallyhouse dev`, `serve` and `migrate`: read the settings, find ClickHouse,
//! and run the service of [`crate::server`] until a signal ends it.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::clickhouse::client::Endpoint;
use crate::clickhouse::engine::{Engine, spread_parts};
use crate::clickhouse::migrations::migrate;
use crate::clickhouse::server_check::{check_server, check_tables};
use crate::config::{Config, ConfigArgs, ConfigError, Secret};
use crate::data_dir::DataDir;
use crate::secret::read_or_make_secret;
use crate::server::{Addresses, ServerError, SqlPort, bind, check_has_administrators, check_is_safe, run};
use crate::sql_gateway;
use crate::transport::raise_descriptor_limit;

/// The settings of a service.
#[derive(clap::Args)]
pub struct ServiceArgs {
    /// A TOML file with settings. The command line and the environment override it.
    #[arg(long, env = "TALLYHOUSE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: ConfigArgs,
}

impl ServiceArgs {
    /// Reads and checks the whole configuration.
    pub fn config(self) -> Result<Config, ConfigError> {
        Config::load(self.settings, self.config.as_deref())
    }
}

/// Runs the service for development, with an embedded ClickHouse or the one at a URL: on loopback,
/// and without authentication unless keys are set. Ends on SIGTERM and Ctrl-C.
///
/// # Errors
/// See [`run`].
pub async fn dev(mut config: Config) -> Result<(), ServerError> {
    check_is_safe(&config)?;
    let _claimed = DataDir::claim(&config.data_dir)?;
    let ticketing_token = make_ticketing_token(&mut config)?;
    raise_descriptor_limit();
    let socket = bind(config.listen)?;
    let shutdown = shutdown_on_signal()?;
    if !config.clickhouse_url.is_empty() {
        let endpoint = Endpoint::configured(&config);
        let reader = reader_or(&config, &endpoint);
        let sql = sql_port(&config).await?;
        let url = sql.as_ref().map_or_else(|| Ok(endpoint.url.clone()), sql_url)?;
        let scheme = scheme(&config);
        let ready = |addresses| welcome(scheme, addresses, &url, ticketing_token.as_ref());
        return run(config, socket, endpoint, reader, sql, shutdown, ready).await;
    }
    // Before the engine, which takes a while.
    let (address, setting) = match config.sql_address() {
        Some(address) => (address, "sql_listen"),
        None => (SocketAddr::from(([127, 0, 0, 1], config.clickhouse_http_port)), "clickhouse_http_port"),
    };
    let listener = sql_gateway::bind(address, setting).await.map_err(ServerError::Part)?;
    let Some(engine) = shutdown.run_until_cancelled(Engine::start(&config)).await else { return Ok(()) };
    let engine = engine.map_err(|error| ServerError::Part(error.to_string()))?;
    let endpoint = Endpoint::of_engine(engine.endpoint(), &config);
    let reader = Endpoint::reader_of_engine(engine.endpoint(), &config);
    let (data_dir, scheme) = (config.data_dir.clone(), scheme(&config));
    let sql = SqlPort { listener, engine_sandbox: Some(engine.sandbox()) };
    let url = sql_url(&sql)?;
    let ready = |addresses| {
        spread_parts(&data_dir); // There are all tables now.
        welcome(scheme, addresses, &url, ticketing_token.as_ref());
    };
    let ran = run(config, socket, endpoint, reader, Some(sql), shutdown, ready).await;
    engine.stop().await;
    ran
}

/// Runs the service against a ClickHouse server. Ends on SIGTERM and Ctrl-C.
///
/// # Errors
/// See [`run`].
pub async fn serve(config: Config) -> Result<(), ServerError> {
    check_has_url(&config)?;
    check_is_safe(&config)?;
    check_has_administrators(&config)?;
    let _claimed = DataDir::claim(&config.data_dir)?;
    raise_descriptor_limit();
    let socket = bind(config.listen)?;
    let endpoint = Endpoint::configured(&config);
    if !config.has_authentication() {
        tracing::warn!("authentication is off: every caller on this machine is the organization 'default'");
    }
    let reader = reader_or(&config, &endpoint);
    let ready = |addresses: Addresses| {
        if let Some(address) = addresses.ticketing {
            tracing::info!(%address, "serving the ticketing catalogue");
        }
        // The last of the addresses: who reads it knows that the service is ready.
        tracing::info!(address = %addresses.main, "serving gRPC, grpc-web and REST");
    };
    let sql = sql_port(&config).await?;
    run(config, socket, endpoint, reader, sql, shutdown_on_signal()?, ready).await
}

/// The port of `sql_listen`, for a ClickHouse that is another's.
async fn sql_port(config: &Config) -> Result<Option<SqlPort>, ServerError> {
    let Some(address) = config.sql_address() else { return Ok(None) };
    let listener = sql_gateway::bind(address, "sql_listen").await.map_err(ServerError::Part)?;
    let address = listener.local_addr().map_err(|source| ServerError::Listen { address, source })?;
    tracing::info!(%address, "serving SQL for analysts");
    Ok(Some(SqlPort { listener, engine_sandbox: None }))
}

/// The URL for analysts.
fn sql_url(sql: &SqlPort) -> Result<String, ServerError> {
    let address = sql.listener.local_addr().map_err(|error| ServerError::Part(error.to_string()))?;
    Ok(format!("http://{address}"))
}

/// The reader's user if it is set, otherwise the service's user.
fn reader_or(config: &Config, endpoint: &Endpoint) -> Endpoint {
    Endpoint::configured_reader(config).unwrap_or_else(|| {
        tracing::warn!(
            "answers are read as the user {:?}, which sees every organization: see docs/security.md for \
             clickhouse_reader_user",
            endpoint.user
        );
        endpoint.clone()
    })
}

/// Brings the tables of a ClickHouse server up to date.
///
/// # Errors
/// When there is no server, or it refuses.
pub async fn bring_up_to_date(config: Config) -> Result<(), ServerError> {
    check_has_url(&config)?;
    let endpoint = Endpoint::configured(&config);
    check_server(&endpoint).await.map_err(|error| ServerError::Part(error.to_string()))?;
    migrate(&endpoint).await.map_err(|error| ServerError::Part(error.to_string()))?;
    check_tables(&endpoint).await.map_err(|error| ServerError::Part(error.to_string()))
}

/// Turns the ticketing catalogue on unless a setting turns it off, and creates an admin token if
/// none is set.
fn make_ticketing_token(config: &mut Config) -> Result<Option<Secret>, ServerError> {
    config.ticketing = config.ticketing.is_on(true).into();
    if !config.has_ticketing() || !config.ticketing_admin_tokens().is_empty() {
        return Ok(None);
    }
    let path = config.data_dir.join("ticketing-admin-token");
    let made = std::fs::create_dir_all(&config.data_dir).and_then(|()| read_or_make_secret(&path));
    let token = made.map_err(|error| ServerError::Part(format!("cannot keep {}: {error}", path.display())))?;
    config.ticketing_admin_tokens = token.clone();
    Ok(Some(token))
}

/// The URL scheme of the port.
const fn scheme(config: &Config) -> &'static str {
    if config.tls_certificate_file.is_empty() { "http" } else { "https" }
}

/// Prints the addresses and commands to try, and the admin token if it was created here.
fn welcome(scheme: &str, addresses: Addresses, url: &str, ticketing_token: Option<&Secret>) {
    let address = addresses.main;
    let ticketing = ticketing_token.map_or_else(String::new, |token| {
        format!(
            "ticketing catalogue    {scheme}://{address}/ticketing/docs\n  \
             its admin token        {}\n  ",
            token.expose()
        )
    });
    let ticketing_port = addresses
        .ticketing
        .map_or_else(String::new, |address| format!("ticketing port         {scheme}://{address}\n  "));
    println!(
        "Tallyhouse is ready.\n\n  \
         gRPC, grpc-web, REST   {scheme}://{address}\n  \
         in a browser           {scheme}://{address}/\n  \
         routes                 {scheme}://{address}/docs\n  \
         {ticketing}{ticketing_port}\
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
