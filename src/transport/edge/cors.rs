//! CORS: what pages of other origins can send and read.

use std::time::Duration;

use axum::http::{HeaderName, Method, header};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};

use crate::config::Origins;

/// How long a browser may remember what CORS allows.
const CORS_MEMORY: Duration = Duration::from_secs(600);

/// Headers that pages may send. Those of tracing are added to every request by
/// instrumentation that its page has for other reasons: one that were refused
/// would make the browser refuse the whole call.
const ALLOWED_HEADERS: [&str; 30] = [
    // What the service reads.
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
    "connect-protocol-version",
    "connect-timeout-ms",
    "grpc-encoding",
    "grpc-accept-encoding",
    "content-encoding",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "x-request-id",
    "traceparent",
    "tracestate",
    // What Segment's library for browsers adds when it sends again.
    "x-retry-count",
    // What other instrumentation adds: OpenTelemetry (W3C, B3, Jaeger, X-Ray), Sentry, Datadog, Elastic.
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "uber-trace-id",
    "x-amzn-trace-id",
    "sentry-trace",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-origin",
    "x-datadog-sampling-priority",
    "elastic-apm-traceparent",
];

/// Allows the configured origins, by default none. `authorization` must be
/// named, as `*` does not include it.
pub(super) fn layer(origins: &Origins) -> CorsLayer {
    let exposed = [
        "grpc-status",
        "grpc-message",
        "grpc-status-details-bin",
        "x-cache",
        "x-watermark",
        "x-request-id",
        "ratelimit",
        "ratelimit-policy",
        "retry-after",
        "allow",
        "etag",
        "idempotency-replayed",
        "date",
        "location",
        "x-summary-cache",
        "www-authenticate",
    ];
    let allowed = ALLOWED_HEADERS.map(HeaderName::from_static).into_iter();
    let origin = match origins {
        Origins::Any => AllowOrigin::from(Any),
        Origins::These(origins) => AllowOrigin::list(origins.iter().cloned()),
    };
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers(allowed.chain([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT]).collect::<Vec<_>>())
        .expose_headers(exposed.map(HeaderName::from_static))
        .max_age(CORS_MEMORY)
}
