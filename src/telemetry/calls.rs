//! Durations of calls, as metrics.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::metrics::Histogram;
use opentelemetry::{KeyValue, StringValue};

use crate::instruments::Instruments;

/// Records the durations of REST and gRPC calls, in seconds. The labels are those of
/// OpenTelemetry's semantic conventions; none contains a value that a caller can choose.
pub struct CallMetrics {
    http: Histogram<f64>,
    rpc: Histogram<f64>,
}

impl CallMetrics {
    pub(super) fn new(instruments: &Instruments) -> Self {
        let http = instruments.seconds("http.server.request.duration");
        Self { http, rpc: instruments.seconds("rpc.server.call.duration") }
    }

    /// A REST call has ended.
    pub fn http(&self, call: &HttpCall<'_>, took: Duration) {
        let HttpCall { method, scheme, route, status, error } = call;
        let mut labels = vec![
            KeyValue::new("http.request.method", known_method(method)),
            KeyValue::new("url.scheme", *scheme),
            KeyValue::new("http.response.status_code", i64::from(*status)),
        ];
        labels.extend(route.map(|route| KeyValue::new("http.route", Arc::clone(route))));
        labels.extend(error.clone().map(|error| KeyValue::new("error.type", error)));
        self.http.record(took.as_secs_f64(), &labels);
    }

    /// A gRPC call has ended, with the name of its status.
    pub fn rpc(&self, method: Option<&Arc<str>>, status: &'static str, error: Option<StringValue>, took: Duration) {
        let method = match method {
            Some(method) => KeyValue::new("rpc.method", Arc::clone(method)),
            None => KeyValue::new("rpc.method", "_OTHER"),
        };
        let system = KeyValue::new("rpc.system.name", "grpc");
        let mut labels = vec![system, method, KeyValue::new("rpc.response.status_code", status)];
        labels.extend(error.map(|error| KeyValue::new("error.type", error)));
        self.rpc.record(took.as_secs_f64(), &labels);
    }
}

/// A REST call, as far as its labels tell.
pub struct HttpCall<'a> {
    /// Its method, as it was sent.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Its route; none: there is no such path.
    pub route: Option<&'a Arc<str>>,
    /// The status of its answer.
    pub status: u16,
    /// What went wrong, if it is this service's fault or the caller has gone.
    pub error: Option<StringValue>,
}

/// A method that is none of the known ones is no label.
pub(crate) fn known_method(method: &str) -> &'static str {
    let known = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    known.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
