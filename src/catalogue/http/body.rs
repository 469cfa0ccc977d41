//! Reads bodies within their limits, and discards unwanted bodies so that a caller who is still sending
//! receives the answer and not a reset.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, EXPECT};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::ApiSettings;
use super::failure::Failure;

/// Most bytes that are read away.
const DRAIN_BYTES_MAX: usize = 64 << 20;
/// Longest that is done for.
const DRAIN_WAIT_MAX: Duration = Duration::from_secs(10);

/// Reads a JSON body's bytes.
///
/// # Errors
/// 415 for another content type, 413 and 408 beyond the bounds, 400 for a body
/// that breaks off.
pub(super) async fn read(request: Request, settings: &ApiSettings) -> Result<Bytes, Failure> {
    let until = Instant::now() + settings.body_wait_max;
    let (parts, mut body) = request.into_parts();
    if let Err(failure) = check_kind(&parts.headers) {
        drain_body(body, &parts.headers).await;
        return Err(failure);
    }
    let bytes_max = settings.body_bytes_max;
    if body.size_hint().lower() > bytes_max as u64 {
        drain_body(body, &parts.headers).await;
        return Err(Failure::too_large(bytes_max));
    }
    match timeout_at(until, collect(&mut body, bytes_max)).await {
        Ok(Ok(Some(bytes))) => Ok(bytes),
        Ok(Ok(None)) => {
            drain_body(body, &parts.headers).await;
            Err(Failure::too_large(bytes_max))
        }
        Ok(Err(())) => Err(Failure::invalid_json("broke off before its end".to_owned())),
        Err(_) => Err(Failure::body_timeout()),
    }
}

/// Discards the body of a request.
pub(super) async fn drain(request: Request) {
    let (parts, body) = request.into_parts();
    drain_body(body, &parts.headers).await;
}

fn check_kind(headers: &HeaderMap) -> Result<(), Failure> {
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
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    subtype == "json" || (subtype.len() > "+json".len() && subtype.ends_with("+json"))
}

/// All bytes of a body; none when they are too many.
async fn collect(body: &mut Body, bytes_max: usize) -> Result<Option<Bytes>, ()> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(drop)?.into_data() else { continue };
        if all.len() + data.len() > bytes_max {
            return Ok(None);
        }
        all.extend_from_slice(&data);
    }
    Ok(Some(all.freeze()))
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
    let _ = timeout(DRAIN_WAIT_MAX, drained).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_content_type() {
        let check = |content_type: &str, expected: bool| assert_eq!(is_json(content_type), expected, "{content_type}");
        check("application/json", true);
        check("Application/JSON ; charset=utf-8", true);
        check("application/merge-patch+json", true);
        check("application/+json", false);
        check("application/jsonp", false);
        check("text/json", false);
        check("", false);
    }
}
