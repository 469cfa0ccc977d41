//! Rate limits in headers, as in draft-ietf-httpapi-ratelimit-headers-10:
//! `RateLimit-Policy: "user-events";q=1000;w=10` and
//! `RateLimit: "user-events";r=0;t=3`.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::{Breach, Quota};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Tells of the limit that somebody is over, and of the longest wait.
pub(in crate::transport) fn tell(breaches: &[Breach], headers: &mut HeaderMap) {
    // A call is over one limit: the next one was not asked any more.
    let Some(breach) = breaches.iter().max_by_key(|breach| breach.wait) else { return };
    let Quota { policy, max, window } = breach.quota;
    let seconds = breach.wait.as_millis().div_ceil(1_000).max(1);
    insert(headers, RATE_LIMIT_POLICY, format!("\"{policy}\";q={max};w={}", window.as_secs()));
    insert(headers, RATE_LIMIT, format!("\"{policy}\";r={};t={seconds}", breach.left));
}

/// Tells how much is left of a limit.
pub(in crate::transport) fn tell_left(left: Option<(Quota, u32)>, headers: &mut HeaderMap) {
    let Some((Quota { policy, max, window }, left)) = left else { return };
    insert(headers, RATE_LIMIT_POLICY, format!("\"{policy}\";q={max};w={}", window.as_secs()));
    insert(headers, RATE_LIMIT, format!("\"{policy}\";r={left}"));
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
