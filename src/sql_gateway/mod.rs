//! The SQL gateway: the port through which analysts use ClickHouse.
//!
//! It implements ClickHouse's HTTP interface, so that ClickHouse's own clients work unchanged. For each
//! request it
//!
//! 1. checks the host and the origin (`origin`), which keeps web pages out,
//! 2. identifies the caller (`credentials`),
//! 3. parses the statement and writes a new one from the parsed tree (`statement`), with settings from a
//!    list (`settings`),
//! 4. limits the statements that run at a time (`queue`),
//! 5. sends the statement to ClickHouse as the analyst's user, whose password only the service knows, and
//!    ends it when its caller disconnects (`forward`),
//! 6. returns the answer without ClickHouse's information on rows read and on the server (`response`).
//!
//! Pages of the service itself use it through the main port (`own_page`).
//!
//! It is one of two barriers. The other is ClickHouse itself: see [`crate::clickhouse::analysts`].

mod credentials;
mod error;
mod forward;
mod listener;
mod origin;
mod own_page;
mod queue;
mod request;
mod response;
mod scope;
mod service;
mod settings;
mod statement;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use credentials::{Login, login};

use crate::clickhouse::analysts::AnalystKey;
use crate::clickhouse::client::Endpoint;
use crate::config::Config;

/// Longest statement, in bytes, which is ClickHouse's own default bound.
const STATEMENT_BYTES_MAX: usize = 256 << 10;
/// Longest a request's body may take to arrive.
const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// Longest time for a caller to read an answer.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);
/// Time beyond a statement's own limit after which it is given up and killed.
const GRACE: Duration = Duration::from_secs(5);

/// Takes the configured port.
///
/// # Errors
/// Says why it cannot be had, and which setting names it.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| {
        format!("cannot listen for SQL on {address} (the setting {setting}): {error}; name another port, or 0 for any free one")
    })
}

/// Analysts' statements, whichever port they come through.
#[derive(Clone)]
pub struct Gateway {
    service: Arc<service::Service>,
    tasks: TaskTracker,
}

impl Gateway {
    /// Runs statements on behalf of the ClickHouse at this endpoint.
    ///
    /// # Errors
    /// When the secret of analysts can be neither read nor made.
    pub fn open(config: &Config, endpoint: &Endpoint, tasks: &TaskTracker) -> std::io::Result<Self> {
        let key = AnalystKey::open(config)?;
        let service = Arc::new(service::Service {
            hosts: origin::OwnHosts::new([&config.allowed_hosts, &config.sql_allowed_hosts]),
            logins: credentials::AnalystLogins::new(config, &key),
            queue: queue::Queue::new(config),
            bounds: settings::SettingLimits::new(config),
            forwarder: forward::StatementRunner::new(config, endpoint.clone(), tasks.clone())?,
        });
        Ok(Self { service, tasks: tasks.clone() })
    }

    /// Serves analysts on a port of their own until `stop`.
    pub fn serve(&self, listener: TcpListener, stop: &CancellationToken) {
        let service = Arc::clone(&self.service);
        self.tasks.spawn(listener::serve(listener, service, self.tasks.clone(), stop.clone()));
    }
}
