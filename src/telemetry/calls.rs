//! Durations of calls.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;

use crate::meters::Instruments;

/// See the module. The labels are those of OpenTelemetry's semantic conventions;
/// none holds anything that a caller can choose.
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
    pub fn http(&self, method: &str, route: Option<&Arc<str>>, status: u16, took: Duration) {
        let method = KeyValue::new("http.request.method", known_method(method));
        let status = KeyValue::new("http.response.status_code", i64::from(status));
        match route {
            Some(route) => {
                let route = KeyValue::new("http.route", Arc::clone(route));
                self.http.record(took.as_secs_f64(), &[method, route, status]);
            }
            None => self.http.record(took.as_secs_f64(), &[method, status]),
        }
    }

    /// A gRPC call has ended, with the name of its status.
    pub fn rpc(&self, method: Option<&Arc<str>>, status: &'static str, took: Duration) {
        let system = KeyValue::new("rpc.system.name", "grpc");
        let method = match method {
            Some(method) => KeyValue::new("rpc.method", Arc::clone(method)),
            None => KeyValue::new("rpc.method", "_OTHER"),
        };
        let status = KeyValue::new("rpc.response.status_code", status);
        self.rpc.record(took.as_secs_f64(), &[system, method, status]);
    }
}

/// A method that is none of the known ones is no label.
pub(crate) fn known_method(method: &str) -> &'static str {
    let known = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"];
    known.into_iter().find(|known| *known == method).unwrap_or("_OTHER")
}
