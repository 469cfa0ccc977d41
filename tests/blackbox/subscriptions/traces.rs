//! The trace of the call that an event came with goes on to whoever handles the event.

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};

use super::receiver::Receiver;
use super::streams::Consumer;
use super::{create, create_webhook, event, failing, status, webhook};
use crate::service::TestService;
use crate::traces::{begun, text, traced_house_with};

async fn send_traced(service: &TestService, header: &str, event: &Value) {
    let post = service.http.post(format!("{}/api/v1/events", service.url)).header("traceparent", header);
    let answer = post.json(&json!({ "events": [event] })).send().await.unwrap();
    assert_eq!(answer.status(), 202);
}

fn header_of(span: &Span) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_a_call_goes_on_to_every_attempt_and_to_the_handler() {
    let local = [("TALLYHOUSE_SUBSCRIPTION_PRIVATE_ADDRESSES", "true")];
    let (mut service, collector) = traced_house_with(&local).await;
    let receiver = Receiver::start().await;
    create_webhook(&service, "hooks", &receiver).await;
    create(&service, &json!({ "name": "jobs", "handler": { "type": "pull" } })).await;

    let (trace, parent, header) = begun(0x50);
    send_traced(&service, &header, &failing("ann", 1)).await;
    let call = collector.span("of the call", |span| span.trace_id == trace && span.parent_span_id == parent).await;
    status(&service, "hooks", |status| status["dead_letters"] == 1).await;
    for attempt in 1..=3_usize {
        let wanted = attempt.to_string();
        let is_it = |span: &Span| {
            span.name == "deliver"
                && text(span, "tallyhouse.delivery.attempt").as_ref() == Some(&wanted)
                && text(span, "tallyhouse.subscription").as_deref() == Some("hooks")
        };
        let span = collector.span("of an attempt", is_it).await;
        assert_eq!((&span.trace_id[..], &span.parent_span_id), (&trace[..], &call.span_id));
        assert_eq!((span.kind(), span.status.as_ref().unwrap().code()), (SpanKind::Client, StatusCode::Error));
        assert_eq!(text(&span, "tallyhouse.delivery.outcome").as_deref(), Some("failed"));
        assert_eq!(text(&span, "tallyhouse.organization"), text(&call, "tallyhouse.organization"));
        assert_eq!(receiver.received()[attempt - 1].traceparent, Some(header_of(&span)));
    }

    // A consumer gets it too.
    let mut consumer = Consumer::connect(&service, "jobs", 10).await.unwrap();
    let pulled = consumer.delivery().await;
    consumer.acknowledge(pulled.number, "", 0).await;
    let is_pulled = |span: &Span| text(span, "tallyhouse.subscription").as_deref() == Some("jobs");
    let span = collector.span("of the consumer", is_pulled).await;
    assert_eq!((&span.trace_id[..], span.kind()), (&trace[..], SpanKind::Producer));
    assert_eq!(text(&span, "tallyhouse.delivery.outcome").as_deref(), Some("processed"));
    assert_eq!(pulled.traceparent, header_of(&span));

    // An event that is tried again after a restart has its trace still.
    let other = Receiver::start().await;
    other.answer(Some(503));
    let mut subscription = webhook("again", &other);
    subscription["attempts_max"] = json!(100);
    let created = create(&service, &subscription).await;
    other.expect_secret(created["secret"].as_str().unwrap());
    let (trace, _, header) = begun(0x60);
    send_traced(&service, &header, &event("bob", 1)).await;
    status(&service, "again", |status| status["retries"].as_u64() > Some(2)).await;
    service.kill();
    other.answer(None);
    let before = other.received().len();
    service.start().await;
    status(&service, "again", |status| status["waiting"] == 0 && status["processed"] == 1).await;
    let again = other.received().swap_remove(before);
    let hex: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(again.traceparent.as_ref().unwrap().contains(&hex), "{again:?}");

    // A call that is not sampled has no spans, and its events no trace.
    super::send(&service, &[event("cid", 1)]).await;
    let cid = super::poll(&service, "/api/v1/subscriptions/hooks/events/cid-1", |found| found["status"] == "processed");
    cid.await;
    let last = receiver.received().pop().unwrap();
    assert_eq!((last.id.as_str(), last.traceparent), ("cid-1", None));
}
