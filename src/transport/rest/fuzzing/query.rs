//! Query strings, and the header that says what a body is.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Uri};

use crate::config::Config;
use crate::domain::{Error, OrgId};
use crate::transport::fuzzing::{NOW, cursors};
use crate::transport::rest::params::Params;
use crate::transport::rest::{body, events, stats};

const FIELDS: [&str; 10] =
    ["query", "from", "to", "window", "limit", "type", "campaign_id", "user_id", "cursor", "granularity"];

fn check<T>(question: Result<T, Error>) -> Option<T> {
    question.map_err(|error| super::check_failure(error, &FIELDS)).ok()
}

/// Every resource reads the query string, or refuses it with the contract's
/// error.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(bytes) {
        let _ = body::check_kind(&HeaderMap::from_iter([(CONTENT_TYPE, value)]));
    }
    // What is no URI is refused before it comes here.
    let Ok(uri) = Uri::from_maybe_shared([b"/?".as_slice(), bytes].concat()) else { return };
    let org = OrgId::default_org();
    check(Params::read(&uri).ranking(NOW));
    if let Some(question) = check(stats::question(Params::read(&uri), Config::default().buckets_max)) {
        let buckets = question.window.buckets(question.granularity.millis());
        assert!((1..=i64::from(Config::default().buckets_max) + 1).contains(&buckets), "{question:?}");
    }
    check(events::question(&cursors(), &org, Params::read(&uri)));
}

/// Query strings, and content types.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "from=2026-02-10T21:10:00Z&to=2026-02-10T21:20:00%2B00:00&campaign_id=c&granularity=hour",
        "from=2026-02-10T23:10:00+02:00&to=9999-12-31T23:59:59Z&limit=1000",
        "window=24h&limit=7",
        "type=click&type=impression&user_id=%C3%A9&campaign_id=&limit=500",
        "cursor=AQAAAAAAAAAA&from=0000-01-01T00:00:00Z",
        "window=99999999999999d&limit=-1&from=%ff",
        "application/cloudevents+json; charset=utf-8",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
