//! The page at `/` of a service whose dashboard was not built.

use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderMap, HeaderValue};
use axum::http::uri::Authority;
use axum::response::{Html, IntoResponse as _, Response};

use super::add_common;
use crate::transport::website::policy;

/// The page, with a place for the address that it was opened by.
const PAGE: &str = include_str!("front_page.html");
/// That place.
const ADDRESS: &str = "{address}";
/// What is shown where a request names no address.
const ADDRESS_DEFAULT: &str = "127.0.0.1:8080";

/// Says what this is and where to go on.
pub(super) async fn show(request: Request) -> Response {
    let from_uri = request.uri().authority().map(Authority::as_str);
    let address = from_uri.or_else(|| host(request.headers())).filter(|address| is_plain(address));
    let mut response = Html(PAGE.replace(ADDRESS, address.unwrap_or(ADDRESS_DEFAULT))).into_response();
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Some(policy) = policy::of_page(PAGE) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    add_common(headers);
    response
}

fn host(headers: &HeaderMap) -> Option<&str> {
    headers.get(HOST).and_then(|host| host.to_str().ok())
}

/// Whether an address has nothing that means something in HTML or in a shell.
fn is_plain(address: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    !address.is_empty() && address.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_addresses_are_shown() {
        for plain in ["localhost:8080", "192.0.2.1", "[::1]:80", "tally.example"] {
            assert!(is_plain(plain), "{plain}");
        }
        for other in ["", "a\"b", "<script>", "a b", "a;b", "$(a)", "user@host"] {
            assert!(!is_plain(other), "{other}");
        }
        assert!(PAGE.contains(ADDRESS));
    }
}
