//! The socket of a connection, which records when bytes are transferred.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Connection;

/// Bytes of the longest beginning that a client can be told by, that of
/// HTTP/2. Until so many have arrived, no protocol is known, and so no time
/// limit of a protocol applies.
const PREFACE_BYTES: usize = 24;

/// The socket of a connection. Records when bytes are read and written, and when the client has
/// sent enough bytes for its protocol to be known.
pub(in crate::transport) struct ConnectionIo {
    stream: TcpStream,
    connection: Arc<Connection>,
    preface_bytes: usize,
}

impl ConnectionIo {
    pub(super) const fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, preface_bytes: 0 }
    }

    pub(in crate::transport) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn note_read(&mut self, bytes: usize) {
        self.connection.note_read();
        if !self.connection.has_spoken.load(Ordering::Relaxed) {
            self.preface_bytes += bytes;
            if self.preface_bytes >= PREFACE_BYTES {
                self.preface_bytes = 0;
                self.connection.has_spoken.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl AsyncRead for ConnectionIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if result.is_ready() {
            self.note_read(buffer.filled().len() - before);
        }
        result
    }
}

impl AsyncWrite for ConnectionIo {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.connection.note_write(result.is_pending());
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.connection.note_write(result.is_pending());
        result
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
