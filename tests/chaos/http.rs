//! As much of HTTP/1.1 as the proxy needs: where a request ends, and what it
//! asks for.

use std::io;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

const READ_BYTES: usize = 64 << 10;

/// A request as it came, byte for byte.
#[derive(Clone)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    head_bytes: usize,
    /// It did not end before its connection did.
    pub(crate) is_cut: bool,
}

impl Request {
    /// Reads one; none when the connection ends before its head does.
    pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut head_bytes = None;
        loop {
            if head_bytes.is_none() {
                head_bytes = bytes.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
            }
            if let Some(head_bytes) = head_bytes
                && has_ended(&bytes, head_bytes)
            {
                return Ok(Some(Self { bytes, head_bytes, is_cut: false }));
            }
            let before = bytes.len();
            bytes.reserve(READ_BYTES);
            if stream.read_buf(&mut bytes).await? == 0 || bytes.len() == before {
                return Ok(head_bytes.map(|head_bytes| Self { bytes, head_bytes, is_cut: true }));
            }
        }
    }

    fn head(&self) -> &[u8] {
        &self.bytes[..self.head_bytes]
    }

    fn body(&self) -> &[u8] {
        &self.bytes[self.head_bytes..]
    }

    /// The token, when it is an insert of a segment.
    pub(crate) fn insert_token(&self) -> Option<String> {
        let head = String::from_utf8_lossy(self.head());
        let path = head.split(' ').nth(1)?;
        if !path.contains("query=INSERT+INTO+events") && !path.contains("query=INSERT%20INTO%20events") {
            return None;
        }
        let token = path.split("insert_deduplication_token=").nth(1).unwrap_or_default();
        Some(token.split('&').next().unwrap_or_default().to_owned())
    }

    fn body_has(&self, text: &str) -> bool {
        self.body().windows(text.len()).any(|part| part == text.as_bytes())
    }

    /// Whether it asks for late events, one by one or by their minutes.
    pub(crate) fn is_look_up(&self) -> bool {
        self.reads_events() && self.body_has("event_id) IN (")
    }

    /// Whether it reads events to rebuild the id ledger.
    pub(crate) fn is_fill(&self) -> bool {
        self.reads_events() && !self.body_has("event_id) IN (")
    }

    fn reads_events(&self) -> bool {
        self.body_has("SELECT org_id,event_id")
    }

    /// Its bytes, made to be the only request of its connection.
    pub(crate) fn alone(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len() + 32);
        let head = String::from_utf8_lossy(self.head());
        for line in head.trim_end().split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
            bytes.extend_from_slice(line.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"connection: close\r\n\r\n");
        bytes.extend_from_slice(self.body());
        bytes
    }
}

/// Whether the body is complete.
fn has_ended(bytes: &[u8], head_bytes: usize) -> bool {
    let head = String::from_utf8_lossy(&bytes[..head_bytes]).to_ascii_lowercase();
    let body = &bytes[head_bytes..];
    if head.contains("transfer-encoding: chunked") {
        return chunks_have_ended(body);
    }
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()?.parse().ok());
    body.len() >= length.unwrap_or(0)
}

fn chunks_have_ended(mut body: &[u8]) -> bool {
    loop {
        let Some(line) = body.windows(2).position(|end| end == b"\r\n") else { return false };
        let size = std::str::from_utf8(&body[..line]).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let Some(size) = size else { return true }; // Not HTTP: as well the end.
        let Some(after) = body.get(line + 2 + size + 2..) else { return false };
        if size == 0 {
            return true;
        }
        body = after;
    }
}
