//! The id of a call: the caller's, or a new one.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Builder, Uuid};

/// The header, and the gRPC metadata.
pub(in crate::transport) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most characters of a caller's id.
const LENGTH_MAX: usize = 128;

/// The id that the caller gave, if it can be one: 1 to 128 visible ASCII
/// characters. Else a new one, a UUIDv7.
pub(super) fn of(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(X_REQUEST_ID).iter();
    let mut id = match (given.next(), given.next()) {
        (Some(id), None) if is_id(id.as_bytes()) => id.clone(),
        _ => new(),
    };
    // Hardly an id comes twice, so HTTP/2 need not keep it, and look for it
    // among others at each call. (RFC 7541, 6.2.3: never indexed.)
    id.set_sensitive(true);
    id
}

fn is_id(bytes: &[u8]) -> bool {
    (1..=LENGTH_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// (Not `Uuid::now_v7`, which asks the system for randomness each time: a
/// microsecond for each call.)
fn new() -> HeaderValue {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let id = Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
    let mut buffer = Uuid::encode_buffer();
    let id = id.hyphenated().encode_lower(&mut buffer);
    HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("none")) // It is ASCII.
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_or_replaced() {
        let check = |given: &[&[u8]], is_taken: bool| {
            let pairs = given.iter().map(|id| (X_REQUEST_ID, HeaderValue::from_bytes(id).expect("a value")));
            let id = of(&HeaderMap::from_iter(pairs));
            match is_taken {
                true => assert_eq!(id.as_bytes(), given[0]),
                false => {
                    let id = Uuid::try_parse(id.to_str().expect("ASCII")).expect("a UUID");
                    assert_eq!(id.get_version_num(), 7);
                }
            }
        };
        check(&[b"a"], true);
        check(&[b"{\"x\":1}~!"], true);
        check(&[&[b'x'; 128]], true);
        check(&[&[b'x'; 129]], false);
        check(&[b""], false);
        check(&[b"a b"], false);
        check(&["é".as_bytes()], false);
        check(&[], false);
    }
}
