//! Exports spans to a collector by OTLP over gRPC, if one is configured.
//!
//! A separate thread sends them. Its queue is bounded and further spans are dropped, so a collector that
//! is slow or unreachable loses spans and has no other effect.

use std::env;
use std::time::Duration;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample,
};

use super::TelemetryError;
use crate::config::Config;
use crate::trace::{self, LINKS_MAX};

/// Longest an export may take, and the end waits for the last one.
const EXPORT_WAIT_MAX: Duration = Duration::from_secs(5);
/// Spans that may wait for export, each of about a kilobyte.
const SPANS_WAITING_MAX: usize = 8_192;
/// Most attributes of a span.
const ATTRIBUTES_MAX: u32 = 32;

/// Spans on their way out, until it is ended.
pub struct Export(Option<SdkTracerProvider>);

impl Export {
    /// Starts the export of spans to the collector in the settings, or in OpenTelemetry's own
    /// variables. Call it within the runtime.
    ///
    /// # Errors
    /// Says why the exporter cannot be created. (An unreachable collector is not an error.)
    pub fn start(config: &Config) -> Result<Self, TelemetryError> {
        let Some(endpoint) = endpoint(config)? else { return Ok(Self(None)) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(&endpoint)
            .with_timeout(EXPORT_WAIT_MAX)
            .build()
            .map_err(|error| TelemetryError(format!("spans cannot be sent to {endpoint}: {error}")))?;
        let batches = BatchConfigBuilder::default().with_max_queue_size(SPANS_WAITING_MAX).build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(ForCalls(Box::new(Sampler::TraceIdRatioBased(config.trace_ratio))))
            .with_max_links_per_span(u32::try_from(LINKS_MAX).unwrap_or(u32::MAX))
            .with_max_attributes_per_span(ATTRIBUTES_MAX)
            .with_resource(resource())
            .build();
        trace::install(provider.tracer("tallyhouse"));
        tracing::info!(endpoint, ratio = config.trace_ratio, "spans are exported");
        Ok(Self(Some(provider)))
    }

    /// Exports waiting spans, for a few seconds at most. Blocking.
    pub fn end(self) {
        let Some(provider) = self.0 else { return };
        if let Err(error) = provider.shutdown_with_timeout(EXPORT_WAIT_MAX) {
            tracing::warn!(%error, "the last spans could not be exported");
        }
    }
}

/// The collector's address, if there is one.
fn endpoint(config: &Config) -> Result<Option<String>, TelemetryError> {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    if given("OTEL_SDK_DISABLED").is_some_and(|value| value.trim().eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let standard = || given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| given("OTEL_EXPORTER_OTLP_ENDPOINT"));
    let own = (!config.otlp_endpoint.is_empty()).then(|| config.otlp_endpoint.clone());
    let protocol = given("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| given("OTEL_EXPORTER_OTLP_PROTOCOL"));
    let endpoint = match own {
        Some(endpoint) => endpoint,
        None => match (standard(), protocol) {
            (None, _) => return Ok(None),
            (Some(endpoint), Some(protocol)) if protocol != "grpc" => {
                // Meant for other programs too: no reason not to serve.
                tracing::warn!(endpoint, protocol, "no spans are exported: only OTLP over gRPC is supported");
                return Ok(None);
            }
            (Some(endpoint), _) => endpoint,
        },
    };
    if !endpoint.starts_with("http://") {
        let message =
            format!("the collector {endpoint} must be an http:// address: have one on this machine that encrypts");
        return Err(TelemetryError(message));
    }
    Ok(Some(endpoint))
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

/// Samples what its caller samples; of calls that come without a trace, a part;
/// and what is done for calls that are sampled.
#[derive(Clone, Debug)]
struct ForCalls(Box<Sampler>);

impl ShouldSample for ForCalls {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let decided = |is_sampled| SamplingResult {
            decision: if is_sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
            attributes: Vec::new(),
            trace_state: parent.map(|parent| parent.span().span_context().trace_state().clone()).unwrap_or_default(),
        };
        let span = parent.map(|parent| parent.span().span_context().clone()).filter(|span| span.is_valid());
        match span {
            Some(span) => decided(span.is_sampled()),
            None if links.iter().any(|link| link.span_context.is_sampled()) => decided(true),
            None => self.0.should_sample(parent, trace_id, name, kind, attributes, links),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceState};

    use super::*;

    fn span(flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(9), SpanId::from(8), flags, true, TraceState::default())
    }

    #[test]
    fn the_caller_decides_then_the_linked_calls_then_chance() {
        let check = |ratio: f64, parent: Option<TraceFlags>, linked: Option<TraceFlags>, expected: SamplingDecision| {
            let sampler = ForCalls(Box::new(Sampler::TraceIdRatioBased(ratio)));
            let context =
                parent.map_or_else(Context::new, |flags| Context::new().with_remote_span_context(span(flags)));
            let links: Vec<Link> = linked.map(|flags| Link::new(span(flags), Vec::new(), 0)).into_iter().collect();
            let sampled = sampler.should_sample(Some(&context), TraceId::from(7), "a", &SpanKind::Client, &[], &links);
            assert_eq!(sampled.decision, expected, "{ratio} {parent:?} {linked:?}");
        };
        let (yes, no) = (SamplingDecision::RecordAndSample, SamplingDecision::Drop);
        let not_sampled = TraceFlags::default();
        check(0.0, Some(TraceFlags::SAMPLED), None, yes.clone());
        check(1.0, Some(not_sampled), None, no.clone());
        check(1.0, Some(not_sampled), Some(TraceFlags::SAMPLED), no.clone());
        check(0.0, None, Some(TraceFlags::SAMPLED), yes.clone());
        check(0.0, None, Some(not_sampled), no);
        check(1.0, None, None, yes);
    }

    #[test]
    fn the_service_has_a_name() {
        let name = resource().get(&opentelemetry::Key::new("service.name"));
        assert!(name.is_some_and(|name| !name.as_str().starts_with("unknown")));
    }
}
