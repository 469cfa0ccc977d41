//! What people see who open the service's address in a browser.
//!
//! Serves the dashboard's files, which [`website`](crate::transport::website) holds in memory, or the
//! front page of a service without the dashboard.
//!
//! All of it is open to everybody: it holds no data. The dashboard asks for
//! data by the same routes as every other client.

mod front_page;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;

use super::auth_layer::Routes;
use crate::transport::auth::RequiredAccess;
use crate::transport::call::SharedBody;
use crate::transport::error::failure::Failure;
use crate::transport::website::{File, Website};

/// The dashboard's pages beside `/`. Each is a directory of its own.
const PAGES: [&str; 3] = ["/dashboard", "/snippets", "/sql"];
/// Its other paths: scripts and styles, and files beside the first page.
const FILES: [&str; 3] = ["/_next/{*file}", "/icon.svg", "/index.txt"];

const CROSS_ORIGIN_OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// Adds the dashboard, or the front page where there is none.
pub(super) fn add(mut routes: Routes, website: Option<&Arc<Website>>) -> Routes {
    let Some(website) = website else {
        return routes.route("/", RequiredAccess::Nothing, get(front_page::show));
    };
    let show = || get(show).with_state(Arc::clone(website));
    for path in FILES {
        routes = routes.route(path, RequiredAccess::Nothing, show());
    }
    for page in PAGES {
        let directory = format!("{page}/");
        let to_directory = directory.clone();
        routes = routes
            .route(page, RequiredAccess::Nothing, get(async move || Redirect::permanent(&to_directory)))
            .route(&directory, RequiredAccess::Nothing, show())
            .route(&format!("{directory}{{*file}}"), RequiredAccess::Nothing, show());
    }
    routes.route("/", RequiredAccess::Nothing, show())
}

async fn show(State(website): State<Arc<Website>>, uri: Uri, request: Request) -> Response {
    match website.file(uri.path()) {
        Some(file) => answer(file, request.headers()),
        None => Failure::no_such_path().into_response(),
    }
}

/// A file, compressed for who accepts that, or that it has not changed.
fn answer(file: &File, asked: &HeaderMap) -> Response {
    let zipped = file.gzip.as_ref().filter(|_| accepts_gzip(asked));
    let mut response = if names(asked.get(IF_NONE_MATCH), &file.etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let body = zipped.unwrap_or(&file.bytes).clone();
        let mut response = (Extension(SharedBody), body).into_response();
        if zipped.is_some() {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response.headers_mut().insert(CONTENT_TYPE, file.content_type.clone());
        response
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, file.etag.clone());
    headers.insert(CACHE_CONTROL, file.cache_control.clone());
    headers.insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if let Some(policy) = &file.policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
    add_common(headers);
    response
}

/// What every file and page is sent with.
pub(super) fn add_common(headers: &mut HeaderMap) {
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin"));
}

/// Whether `If-None-Match` has this tag (RFC 9110, section 13.1.2).
fn names(if_none_match: Option<&HeaderValue>, etag: &HeaderValue) -> bool {
    let Some(Ok(tags)) = if_none_match.map(HeaderValue::to_str) else { return false };
    tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag.as_bytes() == etag)
}

/// Whether `Accept-Encoding` names gzip, and not with a weight of zero.
fn accepts_gzip(asked: &HeaderMap) -> bool {
    let encodings = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    encodings.flat_map(|value| value.split(',')).any(|encoding| {
        let (name, weight) = encoding.split_once(";q=").unwrap_or((encoding, "1"));
        name.trim().eq_ignore_ascii_case("gzip") && weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_who_accepts_it() {
        let check = |value: &str, expected: bool| {
            let asked = HeaderMap::from_iter([(ACCEPT_ENCODING, value.parse().unwrap())]);
            assert_eq!(accepts_gzip(&asked), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, GZIP;q=0.5", true);
        check("gzip;q=0", false);
        check("br", false);
        check("", false);
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn a_tag_is_found_in_a_list() {
        let etag = HeaderValue::from_static("\"abc\"");
        let check = |value: &'static str, expected: bool| {
            assert_eq!(names(Some(&HeaderValue::from_static(value)), &etag), expected, "{value}");
        };
        check("\"abc\"", true);
        check("\"x\", W/\"abc\"", true);
        check("*", true);
        check("\"abcd\"", false);
        check("abc", false);
        assert!(!names(None, &etag));
    }
}
