//! Connections that carry one call at a time, straight on HTTP/1.1 or HTTP/2.
//!
//! The load generator should leave the processor to what it measures, and
//! clients for general use do much that a single connection has no need of:
//! tonic's channel hands each call over to two more tasks.

use anyhow::{Context as _, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue, TE};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;

/// Whether a message is compressed, and its length: before each.
/// ("Length-Prefixed-Message" in gRPC's "gRPC over HTTP2".)
const PREFIX_BYTES: usize = 5;

/// Unary calls of one gRPC method.
pub(crate) struct GrpcConnection {
    http: h2::client::SendRequest<Bytes>,
    request: Request<()>,
}

impl GrpcConnection {
    /// `method` is `/PACKAGE.SERVICE/METHOD`.
    pub(crate) async fn open(url: &str, method: &str) -> anyhow::Result<Self> {
        let (http, driver) = h2::client::handshake(stream(url).await?).await?;
        // Its errors are those of the calls.
        tokio::spawn(driver);
        let request = Request::post(format!("{url}{method}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header(TE, "trailers")
            .body(())?;
        Ok(Self { http, request })
    }

    /// Sends a message and waits for the answer to it, which is an error when
    /// its status is not OK.
    pub(crate) async fn call<A: Message + Default>(&mut self, message: &impl Message) -> anyhow::Result<A> {
        let mut http = self.http.clone().ready().await?;
        let (answer, mut body) = http.send_request(self.request.clone(), false)?;
        body.send_data(prefixed(message)?, true)?;

        let (head, mut body) = answer.await?.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece?;
            body.flow_control().release_capacity(piece.len())?;
            bytes.extend_from_slice(&piece);
        }
        // An answer without a message has its status in the head.
        let end = body.trailers().await?.unwrap_or(head.headers);
        let status = end.get("grpc-status").context("an answer without a status")?;
        ensure!(status == "0", "the call ended with {status:?}: {:?}", end.get("grpc-message"));
        Ok(A::decode(bytes.get(PREFIX_BYTES..).context("an answer without a message")?)?)
    }
}

fn prefixed(message: &impl Message) -> anyhow::Result<Bytes> {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0); // Not compressed.
    bytes.put_u32(u32::try_from(length)?);
    message.encode(&mut bytes)?;
    Ok(bytes.freeze())
}

/// Requests over HTTP/1.1.
pub(crate) struct HttpConnection {
    http: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl HttpConnection {
    pub(crate) async fn open(url: &str) -> anyhow::Result<Self> {
        let stream = stream(url).await?;
        let host = HeaderValue::try_from(stream.peer_addr()?.to_string())?;
        let (http, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Its errors are those of the requests.
        tokio::spawn(driver);
        Ok(Self { http, host })
    }

    /// Sends a request, whose `Host` is added, and waits for the whole answer,
    /// which is an error when its status is not as expected.
    pub(crate) async fn send(&mut self, request: Request<Bytes>, expected: StatusCode) -> anyhow::Result<()> {
        let mut request = request.map(Full::new);
        request.headers_mut().insert(HOST, self.host.clone());
        self.http.ready().await?;
        let answer = self.http.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status == expected, "the answer was {status}: {}", String::from_utf8_lossy(&body));
        Ok(())
    }
}

/// A stream to `http://HOST:PORT`.
async fn stream(url: &str) -> anyhow::Result<TcpStream> {
    let address = url.strip_prefix("http://").context("not an address of HTTP")?;
    let stream = TcpStream::connect(address.trim_end_matches('/')).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
