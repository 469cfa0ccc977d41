//! Query strings, and the content type header.

use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderMap, Uri};

use crate::config::Config;
use crate::domain::{Error, MILLIS_PER_DAY, OrgId};
use crate::transport::fuzzing::{NOW, cursors};
use crate::transport::rest::params::Params;
use crate::transport::rest::{body, events, stats, v1};

const FIELDS: [&str; 15] = [
    "query",
    "from",
    "to",
    "window",
    "limit",
    "type",
    "campaign_id",
    "user_id",
    "cursor",
    "granularity",
    "start_date",
    "end_date",
    "event_type",
    "metrics",
    "days",
];

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
    check(v1::lists::question(Params::read(&uri)));
    check(v1::organizations::question(Params::read(&uri)));
    let windows = [
        check(v1::metrics::question(Params::read(&uri))).map(|question| question.window),
        check(v1::metrics::days(Params::read(&uri))),
    ];
    for window in windows.into_iter().flatten() {
        assert!((1..=3_660).contains(&window.buckets(MILLIS_PER_DAY)), "{window:?}");
    }
}

/// Query strings, and content types.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "from=2026-02-10T21:10:00Z&to=2026-02-10T21:20:00%2B00:00&campaign_id=c&granularity=hour",
        "from=2026-02-10T23:10:00+02:00&to=9999-12-31T23:59:59Z&limit=1000",
        "window=24h&limit=7",
        "type=click&type=impression&user_id=%C3%A9&campaign_id=&limit=500",
        "cursor=AQAAAAAAAAAA&from=0000-01-01T00:00:00Z",
        "start_date=2026-02-10&end_date=2026-02-16T00:00:00Z&metrics=events,ctr&metrics[]=events:x&days=3",
        "start_date=0000-01-01&end_date=9999-12-31&event_type=a&event_type=b&days=0&metrics=a%20b",
        "window=99999999999999d&limit=-1&from=%ff",
        "application/cloudevents+json; charset=utf-8",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
