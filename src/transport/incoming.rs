//! Connections: accepted up to a bound, and cut off when their time is over.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use rustix::process::{Resource, getrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Most connections, whatever the process may open.
const CONNECTIONS_MAX: u64 = 1 << 16;
/// How long to wait when nothing can be accepted, such as for want of file
/// descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of the longest greeting, that of HTTP/2, and how long it may take.
const GREETING_BYTES: usize = 24;
const GREETING_WAIT: Duration = Duration::from_secs(30);

/// Half of the files the process may open: the other half is for the log and
/// the database. More connections wait in the system's line.
fn connections_max() -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(CONNECTIONS_MAX);
    usize::try_from((files / 2).clamp(16, CONNECTIONS_MAX)).unwrap_or(16)
}

/// Every connection there is, until `cut_off`.
pub(super) fn connections(
    listener: TcpListener,
    cut_off: CancellationToken,
) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(connections_max()));
    unfold((listener, places, cut_off), |(listener, places, cut_off)| async move {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        let stream = accept(&listener).await;
        let cut_off_here = Box::pin(cut_off.clone().cancelled_owned());
        let greeting = Some(Greeting { wait: Box::pin(sleep(GREETING_WAIT)), bytes: 0 });
        let connection = Connection { stream, cut_off: cut_off_here, greeting, _place: place };
        Some((Ok(connection), (listener, places, cut_off)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small, and each is waited for.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "TCP_NODELAY could not be set");
                }
                return stream;
            }
            // The connection was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

/// A connection that can be cut off from our side, which drops all that it
/// keeps alive.
pub(super) struct Connection {
    stream: TcpStream,
    cut_off: Pin<Box<WaitForCancellationFutureOwned>>,
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
}

/// What is awaited first: until so many bytes have come, hyper knows no
/// protocol, and so no time limit either.
struct Greeting {
    wait: Pin<Box<Sleep>>,
    bytes: usize,
}

impl Connection {
    /// Whether a connection that waits has waited long enough.
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let greeting = self.greeting.as_mut();
        self.cut_off.as_mut().poll(context).is_ready()
            || greeting.is_some_and(|greeting| greeting.wait.as_mut().poll(context).is_ready())
    }

    /// A connection's result, unless it waits and its time is over.
    fn unless_over<T>(&mut self, result: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_pending() && self.is_over(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        result
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(greeting) = &mut self.greeting {
            greeting.bytes += buffer.filled().len() - before;
            if greeting.bytes >= GREETING_BYTES {
                self.greeting = None;
            }
        }
        self.unless_over(result, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_over(result, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_over(result, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
