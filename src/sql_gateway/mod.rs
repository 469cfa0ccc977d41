//! The SQL gateway: the port where analysts reach ClickHouse.
//!
//! It speaks ClickHouse's HTTP interface, so that ClickHouse's own clients work
//! unchanged. In front of ClickHouse it
//!
//! 1. answers to its own names only (`origin`), which keeps web pages out,
//! 2. says who asks (`credentials`),
//! 3. reads the statement and writes it anew from what it understood
//!    (`statement`), with settings from a list (`settings`),
//! 4. lets so many run at a time and the others wait (`queue`),
//! 5. sends it to ClickHouse as the analyst's user there, whose password nobody
//!    else has, and ends it there when its caller goes (`forward`),
//! 6. passes on the answer without what ClickHouse tells of rows read and of the
//!    server (`response`).
//!
//! It is one of two barriers. The other is ClickHouse itself: see
//! [`crate::clickhouse::analysts`].

mod credentials;
mod error;
mod forward;
mod listener;
mod origin;
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
/// Longest an answer may take to be read by its caller, once it is there.
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

/// Serves analysts until `stop`, on behalf of the ClickHouse at this endpoint.
///
/// # Errors
/// When the secret of analysts can be neither read nor made.
pub fn start(
    config: &Config,
    listener: TcpListener,
    endpoint: &Endpoint,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> std::io::Result<()> {
    let key = AnalystKey::open(config)?;
    let service = Arc::new(service::Service {
        hosts: origin::OwnHosts::new(&config.allowed_hosts),
        logins: credentials::Logins::new(config, &key),
        queue: queue::Queue::new(config),
        bounds: settings::Bounds::new(config),
        forwarder: forward::Forwarder::new(config, endpoint.clone(), tasks.clone())?,
    });
    tasks.spawn(listener::serve(listener, service, tasks.clone(), stop.clone()));
    Ok(())
}
