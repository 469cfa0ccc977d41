//! Spans: what a call's time went into, in OpenTelemetry's terms. For every
//! room to use, as `tracing` is for log lines; [`crate::telemetry`] says where
//! spans go.
//!
//! A call that is not sampled has no span and no context. Asking whether there
//! is one costs a load while nothing is exported, and else the look at a
//! thread's own variable.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::http::HeaderMap;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
pub use opentelemetry::trace::FutureExt;
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
};
pub use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, Span};

/// Calls that the span of an insert is linked to at most.
pub const LINKS_MAX: usize = 32;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends spans here from now on. Only the first call matters.
pub fn install(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Starts the span of a call that came with these headers; none when it is not
/// sampled.
pub fn call(headers: &HeaderMap) -> Option<Context> {
    let tracer = TRACER.get()?;
    let parent = if headers.contains_key("traceparent") {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
    } else {
        Context::new()
    };
    started(tracer, SpanBuilder::from_name("call").with_kind(SpanKind::Server), &parent)
}

/// Starts a part of the current call; none when that is not sampled.
pub fn part(name: &'static str) -> Option<Part> {
    let tracer = TRACER.get()?;
    let parent = Context::map_current(|context| is_sampled(context).then(|| context.clone()))?;
    started(tracer, SpanBuilder::from_name(name), &parent).map(Part)
}

/// Starts a request to another system: as part of the current call, or else on
/// behalf of the linked ones; none when none of these is sampled.
pub fn request(name: &'static str, links: &Calls) -> Option<Part> {
    let tracer = TRACER.get()?;
    let parent = Context::map_current(|context| is_sampled(context).then(|| context.clone()));
    let link = |call: &SpanContext| Link::new(call.clone(), Vec::new(), 0);
    let linked: Vec<Link> = links.spans().iter().map(link).collect();
    if parent.is_none() && linked.is_empty() {
        return None;
    }
    let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_links(linked);
    started(tracer, builder, &parent.unwrap_or_default()).map(Part)
}

/// Notes a part of a call that is over.
pub fn past_part(call: &SpanContext, name: &'static str, begin: SystemTime, end: SystemTime, about: Vec<KeyValue>) {
    let Some(tracer) = TRACER.get() else { return };
    let parent = Context::new().with_remote_span_context(call.clone());
    let builder = SpanBuilder::from_name(name).with_start_time(begin).with_attributes(about);
    tracer.build_with_context(builder, &parent).end_with_timestamp(end);
}

/// The span of the current call; none when it is not sampled.
pub fn current() -> Option<SpanContext> {
    TRACER.get()?;
    Context::map_current(|context| is_sampled(context).then(|| context.span().span_context().clone()))
}

/// The headers that carry the current trace to another system; none when it is
/// not sampled.
pub fn headers() -> Vec<(&'static str, String)> {
    let mut carrier = Carrier::default();
    if TRACER.get().is_some() {
        Context::map_current(|context| {
            if is_sampled(context) {
                TraceContextPropagator::new().inject_context(context, &mut carrier);
            }
        });
    }
    carrier.0
}

fn started(tracer: &SdkTracer, builder: SpanBuilder, parent: &Context) -> Option<Context> {
    let span: Span = tracer.build_with_context(builder, parent);
    span.span_context().is_sampled().then(|| Context::new().with_span(span))
}

fn is_sampled(context: &Context) -> bool {
    context.has_active_span() && context.span().span_context().is_sampled()
}

/// A part of a call, until it is dropped.
pub struct Part(Context);

impl Part {
    /// What further parts belong to.
    pub const fn context(&self) -> &Context {
        &self.0
    }

    /// Says something about it.
    pub fn note(&self, about: KeyValue) {
        self.0.span().set_attribute(about);
    }

    /// It failed, with this kind of error.
    pub fn failed(&self, kind: &'static str) {
        self.note(KeyValue::new("error.type", kind));
        self.0.span().set_status(Status::error(kind));
    }
}

/// The calls that something was done for, as far as they are sampled: some of
/// them, and how many more there are.
#[derive(Clone, Debug, Default)]
pub struct Calls(Option<Arc<(Vec<SpanContext>, u64)>>);

impl Calls {
    /// Adds one.
    pub fn add(&mut self, call: SpanContext) {
        let (spans, left_out) = Arc::make_mut(self.0.get_or_insert_default());
        if spans.last() == Some(&call) {
            return; // Another batch of the same stream.
        }
        if spans.len() < LINKS_MAX { spans.push(call) } else { *left_out += 1 }
    }

    /// Their spans: at most [`LINKS_MAX`].
    pub fn spans(&self) -> &[SpanContext] {
        self.0.as_ref().map_or(&[], |calls| &calls.0)
    }

    /// How many more there are.
    pub fn left_out(&self) -> u64 {
        self.0.as_ref().map_or(0, |calls| calls.1)
    }
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(axum::http::HeaderName::as_str).collect()
    }
}

#[derive(Default)]
struct Carrier(Vec<(&'static str, String)>);

impl Injector for Carrier {
    fn set(&mut self, key: &str, value: String) {
        let names = ["traceparent", "tracestate"];
        if let Some(name) = names.into_iter().find(|name| *name == key && !value.is_empty()) {
            self.0.push((name, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn links_are_bounded_and_those_left_out_are_counted() {
        let span = |id: u64| {
            let (trace, span) = (TraceId::from(1), SpanId::from(id));
            SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::default())
        };
        let mut calls = Calls::default();
        for id in 1..=40 {
            calls.add(span(id));
            calls.add(span(id));
        }
        assert_eq!((calls.spans().len(), calls.left_out()), (LINKS_MAX, 2 * (40 - LINKS_MAX as u64)));
        assert!(Calls::default().spans().is_empty());
    }

    #[test]
    fn without_an_exporter_there_are_no_spans() {
        assert!(call(&HeaderMap::new()).is_none());
        assert!(part("a").is_none() && request("a", &Calls::default()).is_none() && current().is_none());
    }
}
