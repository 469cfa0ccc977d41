//! Reads bodies within their limits, and discards unwanted bodies so that a caller who is still sending
//! receives the answer and not a reset.

use std::io::Read as _;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use axum::http::{HeaderMap, HeaderValue};
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::domain::Error;
use crate::transport::call;
use crate::transport::concurrency::{Class, UnfinishedBytes};
use crate::transport::error::failure::Failure;

/// Largest number of discarded bytes.
const DRAIN_BYTES_MAX: usize = 64 << 20;
/// Longest time for discarding a body.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Bodies larger than this are decompressed on a thread of their own.
const DECOMPRESSED_HERE_BYTES_MAX: usize = 16 << 10;

/// Reads a JSON body's bytes. One that is compressed (`Content-Encoding: gzip`)
/// is decompressed, and bounded both ways: as it was sent, and as it is.
///
/// # Errors
/// 415 for another content type or encoding, 413 and 408 for the bounds
/// [`Config::body_bytes_max`] and [`Config::body_wait_ms_max`], 422 for a body
/// that breaks off, or is not compressed as it says.
pub(super) async fn read(request: Request, config: &Config) -> Result<Bytes, Failure> {
    read_kind(request, config, check_kind).await
}

/// Reads a body's bytes, whatever its content type says. Otherwise as [`read`].
///
/// # Errors
/// Those of [`read`], but for the content type.
pub(in crate::transport) async fn read_any(request: Request, config: &Config) -> Result<Bytes, Failure> {
    read_kind(request, config, check_encoding).await
}

async fn read_kind(
    request: Request,
    config: &Config,
    check: fn(&HeaderMap) -> Result<Encoding, Failure>,
) -> Result<Bytes, Failure> {
    let until = Instant::now() + Duration::from_millis(config.body_wait_ms_max);
    let mut unfinished = call::of(&request).map(|call| call.unfinished_bytes());
    let (parts, mut body) = request.into_parts();
    let encoding = match check(&parts.headers) {
        Ok(encoding) => encoding,
        Err(failure) => {
            drain_body(body, &parts.headers).await;
            return Err(failure);
        }
    };
    let bytes_max = config.body_bytes_max;
    if body.size_hint().lower() > bytes_max as u64 {
        drain_body(body, &parts.headers).await;
        return Err(too_large(bytes_max));
    }
    match timeout_at(until, collect(&mut body, bytes_max, unfinished.as_mut())).await {
        Ok(Ok(bytes)) => decoded(bytes, encoding, bytes_max).await,
        Ok(Err(BodyError::TooLarge)) => {
            drain_body(body, &parts.headers).await;
            Err(too_large(bytes_max))
        }
        Ok(Err(BodyError::Off)) => Err(Error::invalid_field("body", "broke off before its end").into()),
        Ok(Err(BodyError::Refused(error))) => Err(error.into()),
        Err(_) => Err(Failure::request_timeout()),
    }
}

fn too_large(bytes_max: usize) -> Failure {
    Error::too_large(format!("the body may have at most {bytes_max} bytes, also once it is decompressed")).into()
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// It is as it is.
    Identity,
    /// It is compressed (RFC 1952).
    Gzip,
}

async fn decoded(bytes: Bytes, encoding: Encoding, bytes_max: usize) -> Result<Bytes, Failure> {
    match encoding {
        Encoding::Identity => Ok(bytes),
        Encoding::Gzip if bytes.len() <= DECOMPRESSED_HERE_BYTES_MAX => decompress(&bytes, bytes_max),
        Encoding::Gzip => {
            let decompressed = tokio::task::spawn_blocking(move || decompress(&bytes, bytes_max)).await;
            decompressed.unwrap_or_else(|error| {
                tracing::error!(%error, "a body could not be decompressed");
                Err(Error::internal().into())
            })
        }
    }
}

/// Decompresses up to so many bytes: no more is made, however far a body
/// would expand.
pub(super) fn decompress(bytes: &[u8], bytes_max: usize) -> Result<Bytes, Failure> {
    let mut decompressed = Vec::new();
    let bound = (bytes_max as u64).saturating_add(1);
    let read = flate2::read::MultiGzDecoder::new(bytes).take(bound).read_to_end(&mut decompressed);
    if read.is_err() {
        return Err(Error::invalid_field("body", "is not the gzip data that its Content-Encoding promises").into());
    }
    if decompressed.len() > bytes_max { Err(too_large(bytes_max)) } else { Ok(decompressed.into()) }
}

/// Reads away the body of a request that is answered without it, unless others
/// are read away already that are as many as may be.
pub(in crate::transport) async fn drain(request: Request) {
    if request.body().is_end_stream() {
        return;
    }
    if call::of(&request).is_some_and(|call| call.enter(Class::Open, None).is_err()) {
        return;
    }
    let (parts, body) = request.into_parts();
    drain_body(body, &parts.headers).await;
}

pub(super) fn check_kind(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(content_type) {
        return Err(Failure::unsupported_media_type("the content type must be application/json"));
    }
    check_encoding(headers)
}

fn check_encoding(headers: &HeaderMap) -> Result<Encoding, Failure> {
    let mut encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encoding = match encodings.next().map(HeaderValue::as_bytes) {
        None => Some(Encoding::Identity),
        Some(name) if name.eq_ignore_ascii_case(b"identity") => Some(Encoding::Identity),
        // RFC 9110, 8.4.1.3: both names mean the same.
        Some(name) if name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip") => {
            Some(Encoding::Gzip)
        }
        Some(_) => None,
    };
    let encoding = encoding.filter(|_| encodings.next().is_none());
    encoding
        .ok_or_else(|| Failure::unsupported_media_type("the body may be compressed once, by gzip, and not otherwise"))
}

/// `application/json` or any `application/…+json`, with or without parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let ends_in_json = || subtype.len() > 5 && subtype.as_bytes()[subtype.len() - 5..].eq_ignore_ascii_case(b"+json");
    kind.eq_ignore_ascii_case("application") && (subtype.eq_ignore_ascii_case("json") || ends_in_json())
}

/// Why a body cannot be had.
#[derive(Debug, PartialEq)]
enum BodyError {
    /// It broke off.
    Off,
    /// It has too many bytes.
    TooLarge,
    /// There is no room for it beside those of others.
    Refused(Error),
}

/// All bytes of a body. They are counted until it is whole.
async fn collect(
    body: &mut Body,
    bytes_max: usize,
    mut unfinished: Option<&mut UnfinishedBytes>,
) -> Result<Bytes, BodyError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Off)?.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            count(unfinished.as_deref_mut(), body, first.len())?;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
        count(unfinished.as_deref_mut(), body, all.len())?;
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// Counts what is there of a body, unless that is the whole.
fn count(unfinished: Option<&mut UnfinishedBytes>, body: &Body, bytes: usize) -> Result<(), BodyError> {
    match unfinished {
        Some(unfinished) if !body.is_end_stream() => unfinished.set(bytes as u64).map_err(BodyError::Refused),
        Some(_) | None => Ok(()),
    }
}

async fn drain_body(mut body: Body, headers: &HeaderMap) {
    // Who expects to be told to go on has not sent anything, and will not.
    if headers.contains_key(EXPECT) || body.is_end_stream() {
        return;
    }
    let drained = async {
        let mut bytes = 0;
        while bytes <= DRAIN_BYTES_MAX {
            let Some(Ok(frame)) = body.frame().await else { return };
            bytes += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Whatever is left then costs the caller the connection.
    let _ = tokio::time::timeout(DRAIN_WAIT_MAX, drained).await;
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[test]
    fn json_is_told_by_its_content_type() {
        let check = |content_type: &str, expected: bool| assert_eq!(is_json(content_type), expected, "{content_type}");
        check("application/json", true);
        check("Application/JSON; charset=utf-8", true);
        check("application/json ;charset=utf-8", true);
        check("application/cloudevents+json", true);
        check("application/+json", false);
        check("application/jsonp", false);
        check("text/json", false);
        check("text/plain", false);
        check("", false);
        check("application/é+json", true);
        check("application/xé", false);
    }

    async fn collected(chunks: &[&'static str], bytes_max: usize) -> Result<Bytes, BodyError> {
        let chunks: Vec<Result<_, std::io::Error>> = chunks.iter().map(|chunk| Ok(*chunk)).collect();
        let mut body = Body::from_stream(stream::iter(chunks));
        collect(&mut body, bytes_max, None).await
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        assert_eq!(collected(&[], 3).await.as_deref(), Ok(&b""[..]));
        assert_eq!(collected(&["abc"], 3).await.as_deref(), Ok(&b"abc"[..]));
        assert_eq!(collected(&["a", "", "b", "c"], 3).await.as_deref(), Ok(&b"abc"[..]));
        assert_eq!(collected(&["abcd"], 3).await, Err(BodyError::TooLarge));
        assert_eq!(collected(&["ab", "cd"], 3).await, Err(BodyError::TooLarge));
        assert_eq!(collected(&["a", "b", "cd"], 3).await, Err(BodyError::TooLarge));
    }

    fn request(content_type: &str, body: Body) -> Request {
        Request::builder().header(CONTENT_TYPE, content_type).body(body).expect("a request")
    }

    #[tokio::test]
    async fn each_bound_has_its_status() {
        let config = Config { body_bytes_max: 4, body_wait_ms_max: 20, ..Config::default() };
        let check = async |request: Request, expected: u16| {
            let status = read(request, &config).await.err().map(|failure| failure.status().as_u16());
            assert_eq!(status, Some(expected));
        };
        check(request("text/plain", Body::from("{}")), 415).await;
        check(request("application/json", Body::from("12345")), 413).await;
        let slow = stream::once(std::future::pending::<Result<Bytes, std::io::Error>>());
        check(request("application/json", Body::from_stream(slow)), 408).await;
        let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("broken"))]);
        check(request("application/json", Body::from_stream(broken)), 422).await;
        let encoded = |encodings: &[&'static str], body: Vec<u8>| {
            let mut request = request("application/json", Body::from(body));
            for encoding in encodings {
                request.headers_mut().append(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
            request
        };
        check(encoded(&["br"], b"{}".to_vec()), 415).await;
        check(encoded(&["gzip, gzip"], b"{}".to_vec()), 415).await;
        check(encoded(&["gzip", "gzip"], b"{}".to_vec()), 415).await;
        check(encoded(&["gzip"], b"{}".to_vec()), 422).await;
        check(encoded(&["gzip"], gzip(b"{}")), 413).await;
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut encoder, bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[tokio::test]
    async fn a_compressed_body_is_bounded_before_and_after() {
        let check = async |text: &[u8], bytes_max: usize, expected: Result<usize, u16>| {
            let read = decoded(gzip(text).into(), Encoding::Gzip, bytes_max).await;
            let read = read.map(|bytes| bytes.len()).map_err(|failure| failure.status().as_u16());
            assert_eq!(read, expected);
        };
        check(b"", 4, Ok(0)).await;
        check(b"{}  ", 4, Ok(4)).await;
        check(b"{}   ", 4, Err(413)).await;
        // A thousandth of what it expands to, on a thread of its own.
        check(&vec![b' '; 64 << 20], 1 << 20, Err(413)).await;
        let two = [gzip(b"{"), gzip(b"}")].concat();
        assert_eq!(decompress(&two, 4).ok().as_deref(), Some(&b"{}"[..]));
        let half = gzip(&[b'x'; 1_000]);
        assert_eq!(
            decompress(&half[..half.len() - 9], 4_000).err().map(|failure| failure.status().as_u16()),
            Some(422)
        );
    }
}
