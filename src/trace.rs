//! Spans of sampled calls, in OpenTelemetry's terms. Every module may use it, as `tracing` is used for log lines;
//! [`crate::telemetry`] says where spans go.
//!
//! Whether a call is sampled is decided once, by [`call`], before any span is made. Of a call that is not sampled, no
//! span is ever made: `child_span!` first looks whether there is a sampled call, which costs one load while nothing is
//! exported, and otherwise a look at a thread-local variable.
//!
//! Spans of calls, handlers and clients are spans of `tracing`, which `tracing-opentelemetry` exports. What is done for
//! many calls at once, or is known only when it is over, is told to OpenTelemetry itself: [`linked_span`] and
//! [`finished_span`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::propagation::TextMapPropagator as _;
pub use opentelemetry::trace::{FutureExt, SpanKind};
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanContext, Status, TraceContextExt as _, Tracer as _};
pub use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use parking_lot::Mutex;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Calls that the span of an insert is linked to at most.
pub const LINKS_MAX: usize = 32;
/// Batches of sampled calls whose arrivals are remembered at most; the oldest are forgotten.
const BATCHES_REMEMBERED_MAX: usize = 16_384;
/// The header that carries a trace (<https://www.w3.org/TR/trace-context/#traceparent-header>).
const TRACEPARENT: &str = "traceparent";
/// The target of all spans that are exported, and of nothing else. No log line shows them.
pub const TARGET: &str = "tallyhouse::span";

static EXPORT: OnceLock<Export> = OnceLock::new();
/// The arrivals of sampled calls' batches: from the first on so many, and the call.
static ARRIVALS: Mutex<BTreeMap<u64, (u64, SpanContext)>> = Mutex::new(BTreeMap::new());

/// Where spans go, and which calls have them.
struct Export {
    tracer: SdkTracer,
    /// Of the calls that come without a trace, the part that is sampled, from 0 to 1.
    ratio: f64,
}

/// Exports spans by this tracer from now on: of the calls whose callers sample them, and of this part (0 to 1) of those
/// that come without a trace. Only the first call of this function has an effect.
pub fn install(tracer: SdkTracer, ratio: f64) {
    let _ = EXPORT.set(Export { tracer, ratio });
}

/// Starts the span of a call that came with these headers. None when the call is not sampled.
pub fn call(headers: &HeaderMap) -> Option<Span> {
    let export = EXPORT.get()?;
    let caller = caller(headers);
    if !is_wanted(&caller, export.ratio) {
        return None;
    }
    let span = tracing::info_span!(target: TARGET, parent: None, "call", otel.kind = "server");
    span.set_parent(caller).is_ok().then_some(span)
}

/// The trace that a call's headers name. An empty context when there is none, or it cannot be read.
fn caller(headers: &HeaderMap) -> Context {
    if headers.contains_key(TRACEPARENT) {
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers))
    } else {
        Context::new()
    }
}

/// Whether a call is sampled: as its caller says, or else by chance.
fn is_wanted(caller: &Context, ratio: f64) -> bool {
    let span = caller.span();
    let span = span.span_context();
    if span.is_valid() { span.is_sampled() } else { rand::random::<f64>() < ratio }
}

/// Whether there is a current call, and it is sampled.
pub fn is_sampled() -> bool {
    EXPORT.get().is_some() && Context::map_current(has_sampled_span)
}

fn has_sampled_span(context: &Context) -> bool {
    context.has_active_span() && context.span().span_context().is_sampled()
}

/// Makes the span of a part of the current call, from a name and the fields of `tracing::info_span!`. When the call is
/// not sampled, the span is a disabled one and the fields are not evaluated.
///
/// Do not spawn a task with `in_current_span` within such a span: the task's log lines would lose the call's id.
macro_rules! child_span {
    ($name:literal $(, $($fields:tt)*)?) => {
        if $crate::trace::is_sampled() {
            tracing::info_span!(target: $crate::trace::TARGET, $name $(, $($fields)*)?)
        } else {
            tracing::Span::none()
        }
    };
}
pub(crate) use child_span;

/// Starts the span of a request to another system on behalf of these calls, linked to them. None when none of them is
/// sampled. It ends when the last clone of the context is dropped.
pub fn linked_span(name: &'static str, calls: &Calls, attributes: Vec<KeyValue>) -> Option<Context> {
    let export = EXPORT.get()?;
    let link = |call: &SpanContext| Link::new(call.clone(), Vec::new(), 0);
    let links: Vec<Link> = calls.spans().iter().map(link).collect();
    if links.is_empty() {
        return None;
    }
    let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Client).with_links(links);
    let span = export.tracer.build_with_context(builder.with_attributes(attributes), &Context::new());
    Some(Context::new().with_span(span))
}

/// Notes a part of a call that is over.
pub fn finished_span(
    call: &SpanContext,
    name: &'static str,
    begin: SystemTime,
    end: SystemTime,
    attributes: Vec<KeyValue>,
) {
    let Some(export) = EXPORT.get() else { return };
    let parent = Context::new().with_remote_span_context(call.clone());
    let builder = SpanBuilder::from_name(name).with_start_time(begin).with_attributes(attributes);
    export.tracer.build_with_context(builder, &parent).end_with_timestamp(end);
}

/// Remembers that these arrivals are of events of the current call, if it is sampled. (See [`crate::clock`].)
pub fn note_arrivals(first: u64, count: u64) {
    let Some(call) = current() else { return };
    let mut arrivals = ARRIVALS.lock();
    arrivals.insert(first, (count, call));
    if arrivals.len() > BATCHES_REMEMBERED_MAX {
        arrivals.pop_first();
    }
}

/// The `traceparent` of the call that the event with this arrival came with. None when the call was not sampled, was of a
/// former run, or is long ago.
pub fn traceparent_of(arrival: u64) -> Option<String> {
    EXPORT.get()?;
    let arrivals = ARRIVALS.lock();
    let (first, (count, call)) = arrivals.range(..=arrival).next_back()?;
    (arrival - first < *count).then(|| traceparent(&Context::new().with_remote_span_context(call.clone())))?
}

/// The `traceparent` that names a context's span.
pub fn traceparent(context: &Context) -> Option<String> {
    let mut headers = HeaderMap::new();
    TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(&mut headers));
    headers.get(TRACEPARENT)?.to_str().ok().map(str::to_owned)
}

/// Starts a span that continues the trace of a `traceparent`. None when nothing is exported, or it cannot be read. It ends
/// when the last clone of the context is dropped.
pub fn continued_span(
    traceparent: &str,
    name: &'static str,
    kind: SpanKind,
    attributes: Vec<KeyValue>,
) -> Option<Context> {
    let export = EXPORT.get()?;
    let value = HeaderValue::from_str(traceparent).ok()?;
    let parent = caller(&HeaderMap::from_iter([(TRACEPARENT.parse().ok()?, value)]));
    if !has_sampled_span(&parent) {
        return None;
    }
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes);
    let span = export.tracer.build_with_context(builder, &parent);
    Some(Context::new().with_span(span))
}

/// Notes how the work of a span ended: an attribute, and the kind of error if it failed.
pub fn note_end(context: &Context, outcome: KeyValue, error: Option<&'static str>) {
    let span = context.span();
    span.set_attribute(outcome);
    if let Some(kind) = error {
        span.set_attribute(KeyValue::new("error.type", kind));
        span.set_status(Status::error(kind));
    }
}

/// The span of the current call. None when the call is not sampled.
pub fn current() -> Option<SpanContext> {
    EXPORT.get()?;
    Context::map_current(|context| has_sampled_span(context).then(|| context.span().span_context().clone()))
}

/// The headers that carry the current trace to another system. None when it is not sampled.
pub fn headers() -> Option<HeaderMap> {
    EXPORT.get()?;
    Context::map_current(|context| {
        has_sampled_span(context).then(|| {
            let mut headers = HeaderMap::new();
            TraceContextPropagator::new().inject_context(context, &mut HeaderInjector(&mut headers));
            headers
        })
    })
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::HeaderValue;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// Counts the spans that are made.
    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl<S: tracing::Subscriber> Layer<S> for Counter {
        fn on_new_span(
            &self,
            _: &tracing::span::Attributes<'_>,
            _: &tracing::span::Id,
            _: tracing_subscriber::layer::Context<'_, S>,
        ) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn headers_of(traceparent: &'static str) -> HeaderMap {
        HeaderMap::from_iter([("traceparent".parse().unwrap(), HeaderValue::from_static(traceparent))])
    }

    fn span(flags: TraceFlags) -> SpanContext {
        SpanContext::new(TraceId::from(9), SpanId::from(8), flags, true, TraceState::default())
    }

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
    fn the_caller_decides_then_chance() {
        let check = |ratio: f64, caller: Option<TraceFlags>, expected: bool| {
            let context =
                caller.map_or_else(Context::new, |flags| Context::new().with_remote_span_context(span(flags)));
            assert_eq!(is_wanted(&context, ratio), expected, "{ratio} {caller:?}");
        };
        check(0.0, Some(TraceFlags::SAMPLED), true);
        check(1.0, Some(TraceFlags::default()), false);
        check(0.0, None, false);
        check(1.0, None, true);
    }

    #[test]
    fn a_trace_that_cannot_be_read_is_none() {
        for traceparent in ["", "nonsense", "00-00000000000000000000000000000000-0000000000000000-01"] {
            assert!(!caller(&headers_of(traceparent)).span().span_context().is_valid(), "{traceparent}");
        }
    }

    #[test]
    fn only_a_sampled_call_makes_spans() {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        let counter = Counter::default();
        let spans = || counter.0.load(Ordering::Relaxed);
        let layer = tracing_opentelemetry::layer().with_tracer(tracer.clone());
        let subscriber = tracing_subscriber::registry().with(counter.clone()).with(layer);
        install(tracer, 0.0);
        tracing::subscriber::with_default(subscriber, || {
            let unsampled = headers_of("00-11111111111111111111111111111111-2222222222222222-00");
            for sent in [HeaderMap::new(), unsampled] {
                assert!(call(&sent).is_none() && current().is_none() && headers().is_none());
                let child = child_span!("child", number = panic_if_evaluated());
                assert!(child.is_none() && linked_span("insert", &Calls::default(), Vec::new()).is_none());
            }
            assert_eq!(spans(), 0);

            let call = call(&headers_of("00-11111111111111111111111111111111-2222222222222222-01")).unwrap();
            let in_call = call.in_scope(|| {
                let child = child_span!("child", number = 1_i64);
                let in_child = child.in_scope(|| current().unwrap());
                let carried = headers().unwrap();
                let own = current().unwrap();
                assert_eq!(caller(&carried).span().span_context().span_id(), own.span_id());
                assert_eq!(
                    (in_child.trace_id(), own.trace_id()),
                    (own.trace_id(), TraceId::from(0x1111_1111_1111_1111_1111_1111_1111_1111))
                );
                assert_ne!(in_child.span_id(), own.span_id());
                own
            });
            assert!(current().is_none());
            assert_eq!(spans(), 2);
            note_arrivals(10, 5);
            assert_eq!(traceparent_of(10), None, "there is no call");
            call.in_scope(|| note_arrivals(100, 5));
            let of_call = traceparent_of(104).unwrap();
            assert_eq!((traceparent_of(99), traceparent_of(105)), (None, None));
            let continued = continued_span(&of_call, "deliver", SpanKind::Client, Vec::new()).unwrap();
            assert_eq!(continued.span().span_context().trace_id(), in_call.trace_id());
            assert_ne!(traceparent(&continued), Some(of_call));
            assert!(continued_span("", "deliver", SpanKind::Client, Vec::new()).is_none());

            let mut calls = Calls::default();
            calls.add(in_call.clone());
            let linked = linked_span("insert", &calls, Vec::new()).unwrap();
            assert_ne!(linked.span().span_context().trace_id(), in_call.trace_id());
            assert_eq!(spans(), 2, "OpenTelemetry's own interface makes no span of tracing");
        });
    }

    fn panic_if_evaluated() -> i64 {
        panic!("fields of a disabled span are not evaluated")
    }
}
