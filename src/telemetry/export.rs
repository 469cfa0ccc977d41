//! Exports spans to a collector by OTLP over gRPC, if one is configured.
//!
//! A separate thread sends them. Its queue is bounded and further spans are dropped, so a collector that
//! is slow or unreachable loses spans and has no other effect.

use std::env;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};

use super::TelemetryError;
use crate::config::Config;
use crate::trace::LINKS_MAX;

/// Longest an export may take, and the end waits for the last one.
const EXPORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Spans that may wait for export, each of about a kilobyte.
const SPANS_WAITING_MAX: usize = 8_192;
/// Most attributes of a span.
const ATTRIBUTES_MAX: u32 = 32;

/// Spans on their way out, until it is ended.
pub struct Export {
    provider: Option<SdkTracerProvider>,
    collector: Collector,
}

/// Where the settings, or else OpenTelemetry's own variables, say that spans go.
enum Collector {
    /// Nowhere.
    None,
    /// To an address where this protocol is spoken, which this service does not speak.
    Foreign { endpoint: String, protocol: String },
    /// To this address.
    At { endpoint: String, ratio: f64 },
}

impl Export {
    /// Prepares the export of spans to the collector in the settings, or in OpenTelemetry's own
    /// variables. Call it within the runtime.
    ///
    /// # Errors
    /// Says why the exporter cannot be created. (An unreachable collector is not an error.)
    pub(super) fn open(config: &Config) -> Result<Self, TelemetryError> {
        let collector = Collector::find(config)?;
        let Collector::At { endpoint, .. } = &collector else { return Ok(Self { provider: None, collector }) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_WAIT_MAX)
            .build()
            .map_err(|error| TelemetryError(format!("spans cannot be sent to {endpoint}: {error}")))?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(SPANS_WAITING_MAX).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Only calls that are sampled have spans: see `crate::trace`.
            .with_sampler(Sampler::AlwaysOn)
            .with_max_links_per_span(u32::try_from(LINKS_MAX).unwrap_or(u32::MAX))
            .with_max_attributes_per_span(ATTRIBUTES_MAX)
            .with_resource(resource())
            .build();
        Ok(Self { provider: Some(provider), collector })
    }

    /// Makes spans for it. None where they go nowhere.
    pub(super) fn tracer(&self) -> Option<SdkTracer> {
        self.provider.as_ref().map(|provider| provider.tracer("tallyhouse"))
    }

    /// Says in the log where spans go.
    pub(super) fn log(&self) {
        match &self.collector {
            Collector::None => {}
            Collector::Foreign { endpoint, protocol } => {
                // Meant for other programs too: no reason not to serve.
                tracing::warn!(endpoint, protocol, "no spans are exported: only OTLP over gRPC is supported");
            }
            Collector::At { endpoint, ratio } => tracing::info!(endpoint, ratio, "spans are exported"),
        }
    }

    /// Exports waiting spans, for a few seconds at most. Blocking.
    pub fn end(self) {
        let Some(provider) = self.provider else { return };
        if let Err(error) = provider.shutdown_with_timeout(EXPORT_WAIT_MAX) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

impl Collector {
    fn find(config: &Config) -> Result<Self, TelemetryError> {
        let given = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
        if given("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
            return Ok(Self::None);
        }
        let standard = || given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let own = (!config.otlp_endpoint.is_empty()).then(|| config.otlp_endpoint.clone());
        let protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| given("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let endpoint = match own {
            Some(endpoint) => endpoint,
            None => match (standard(), protocol) {
                (None, _) => return Ok(Self::None),
                (Some(endpoint), Some(protocol)) if protocol != "grpc" => {
                    return Ok(Self::Foreign { endpoint, protocol });
                }
                (Some(endpoint), _) => endpoint,
            },
        };
        if !endpoint.starts_with("http://") {
            let message =
                format!("the collector {endpoint} must be an http:// address: have one on this machine that encrypts");
            return Err(TelemetryError(message));
        }
        Ok(Self::At { endpoint, ratio: config.trace_ratio })
    }
}

/// What all spans say of the service. `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES` are read and win.
fn resource() -> Resource {
    let own = Resource::builder_empty()
        .with_service_name("tallyhouse")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()))
        .build();
    let is_named = env::var_os("OTEL_SERVICE_NAME").is_some()
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let standard = Resource::builder().build();
    let wins = standard.iter().filter(|(key, _)| is_named || key.as_str() != "service.name");
    let wins = wins.map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_attributes(own.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())))
        .with_attributes(wins)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_has_a_name() {
        let name = resource().get(&opentelemetry::Key::new("service.name"));
        assert!(name.is_some_and(|name| !name.as_str().starts_with("unknown")));
    }
}
