//! Accepts connections.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::{ConnectionIo, ConnectionPermit, Connections};

/// How long to wait when nothing can be accepted, such as for want of file
/// descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections within the limit.
pub(in crate::transport) struct Listener {
    listener: TcpListener,
    connections: Arc<Connections>,
}

impl Listener {
    pub(in crate::transport) const fn new(listener: TcpListener, connections: Arc<Connections>) -> Self {
        Self { listener, connections }
    }

    /// The next connection. It is accepted before it has a place, so that one
    /// is closed only for one that has come.
    pub(in crate::transport) async fn accept(&self) -> (ConnectionIo, ConnectionPermit) {
        let stream = self.next().await;
        // Answers are small, and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let place = self.connections.place().await;
        (ConnectionIo::new(stream, Arc::clone(place.connection())), place)
    }

    async fn next(&self) -> TcpStream {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                // The connection was gone before it was accepted.
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection; closing one");
                    self.connections.close_least_needed();
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
