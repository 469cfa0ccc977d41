//! Bodies: read within their bounds, and read away where they are not wanted,
//! so that a caller who is still sending gets the answer and not a reset.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use crate::config::Config;
use crate::domain::Error;

/// Most bytes that are read away.
const DRAIN_BYTES_MAX: usize = 64 << 20;
/// Longest that is done for.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads a JSON body's bytes.
///
/// # Errors
/// 415 for another content type, 413 and 408 for the bounds
/// [`Config::body_bytes_max`] and [`Config::body_wait_ms_max`], 422 for a body
/// that breaks off.
pub(super) async fn read(request: Request, config: &Config) -> Result<Bytes, Failure> {
    let until = Instant::now() + Duration::from_millis(config.body_wait_ms_max);
    let (parts, mut body) = request.into_parts();
    if let Err(failure) = check_kind(&parts.headers) {
        drain_body(body, &parts.headers).await;
        return Err(failure);
    }
    let bytes_max = config.body_bytes_max;
    let too_large = || Failure::from(Error::too_large(format!("the body may have at most {bytes_max} bytes")));
    if body.size_hint().lower() > bytes_max as u64 {
        drain_body(body, &parts.headers).await;
        return Err(too_large());
    }
    match timeout_at(until, collect(&mut body, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            drain_body(body, &parts.headers).await;
            Err(too_large())
        }
        Ok(Err(())) => Err(Error::invalid_field("body", "broke off before its end").into()),
        Err(_) => Err(Failure::request_timeout()),
    }
}

/// Reads away the body of a request that is answered without it.
pub(super) async fn drain(request: Request) {
    let (parts, body) = request.into_parts();
    drain_body(body, &parts.headers).await;
}

pub(super) fn check_kind(headers: &HeaderMap) -> Result<(), Failure> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(content_type) {
        return Err(Failure::unsupported_media_type("the content type must be application/json"));
    }
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Failure::unsupported_media_type("the body must not be compressed"))
        }
        Some(_) | None => Ok(()),
    }
}

/// `application/json` or any `application/…+json`, with or without parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    let ends_in_json = || subtype.len() > 5 && subtype.as_bytes()[subtype.len() - 5..].eq_ignore_ascii_case(b"+json");
    kind.eq_ignore_ascii_case("application") && (subtype.eq_ignore_ascii_case("json") || ends_in_json())
}

/// All bytes of a body; none when they are too many.
async fn collect(body: &mut Body, bytes_max: usize) -> Result<Option<Bytes>, ()> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(drop)?.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > bytes_max {
            return Ok(None);
        }
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        all.extend_from_slice(&std::mem::take(&mut first));
        all.extend_from_slice(&data);
    }
    Ok(Some(if all.is_empty() { first } else { all.freeze() }))
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

    async fn collected(chunks: &[&'static str], bytes_max: usize) -> Option<Bytes> {
        let chunks: Vec<Result<_, std::io::Error>> = chunks.iter().map(|chunk| Ok(*chunk)).collect();
        let mut body = Body::from_stream(stream::iter(chunks));
        collect(&mut body, bytes_max).await.expect("a body")
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_bound() {
        assert_eq!(collected(&[], 3).await.as_deref(), Some(&b""[..]));
        assert_eq!(collected(&["abc"], 3).await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(collected(&["a", "", "b", "c"], 3).await.as_deref(), Some(&b"abc"[..]));
        assert_eq!(collected(&["abcd"], 3).await, None);
        assert_eq!(collected(&["ab", "cd"], 3).await, None);
        assert_eq!(collected(&["a", "b", "cd"], 3).await, None);
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
        let mut compressed = request("application/json", Body::from("{}"));
        compressed.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().expect("a value"));
        check(compressed, 415).await;
    }
}
