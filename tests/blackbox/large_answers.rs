//! Every answer fits in what clients accept when nobody tells them otherwise:
//! messages of 4 MiB, and headers of 8 KiB.

use serde_json::json;
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::event_type_service_client::EventTypeServiceClient;
use tallyhouse::transport::proto::metrics_service_client::MetricsServiceClient;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::events::{click, now_millis};
use crate::service::TestService;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_10_000_rejected_events_is_read_and_names_each() {
    let service = TestService::new().await;
    let bad = |n: usize| proto::Event {
        campaign_id: "\u{7}".to_owned(),
        user_id: "x".repeat(257),
        ..click(&format!("{n:0>120}"), 0)
    };
    let events: Vec<proto::Event> = (0..10_000).map(bad).collect();
    let request = proto::IngestBatchRequest { events: events.clone(), ..Default::default() };
    let answer = service.ingest().await.ingest_batch(request).await.unwrap().into_inner();
    assert_eq!((answer.counts.unwrap().rejected, answer.results.len()), (10_000, 10_000));
    let detailed = answer.results.iter().take_while(|result| !result.errors.is_empty()).count();
    assert_eq!(10_000 - detailed, answer.results_without_details as usize);
    assert!((1..10_000).contains(&detailed), "{detailed}");
    assert_eq!(answer.results[0].errors.len(), 3);
    let all_named = answer.results.iter().zip(0..).all(|(result, index)| {
        result.index == index
            && result.verdict() == proto::Verdict::Rejected
            && result.code() != proto::RejectionCode::Unspecified
    });
    assert!(all_named);

    let request = proto::IngestRequest { sequence: 1, events, ..Default::default() };
    let stream = service.ingest().await.ingest(tokio_stream::once(request)).await.unwrap();
    let answer = stream.into_inner().message().await.unwrap().unwrap();
    assert_eq!((answer.results.len(), answer.results_without_details as usize), (10_000, 10_000 - detailed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_large_events_goes_on_with_the_next() {
    let service = TestService::new().await;
    let large = |n: usize| proto::Event {
        properties: json!({ "a": "x".repeat(16_000) }).to_string(),
        ..click(&format!("e-{n}"), now_millis())
    };
    for batch in (0..400).collect::<Vec<_>>().chunks(100) {
        service.store(batch.iter().map(|n| large(*n)).collect()).await;
    }
    let (mut seen, mut pages, mut page_token) = (std::collections::HashSet::new(), 0, String::new());
    loop {
        let request = proto::ListEventsRequest { page_size: 500, page_token, ..Default::default() };
        let page = service.query().await.list_events(request).await.unwrap().into_inner();
        seen.extend(page.events.into_iter().map(|stored| stored.event.unwrap().event_id));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((seen.len(), pages), (400, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_large_schemas_and_many_faults_are_cut_and_counted() {
    let service = TestService::new().await;
    let mut types = EventTypeServiceClient::new(service.channel().await);
    for n in 0..55 {
        let schema = json!({ "title": format!("{n}{}", "x".repeat(64_000)) }).to_string();
        let request = proto::RegisterEventTypeRequest { r#type: "x".to_owned(), schema, ..Default::default() };
        types.register_event_type(request).await.unwrap();
    }
    let get = |version: u32| proto::GetEventTypeRequest { r#type: "x".to_owned(), version };
    let versions = types.get_event_type(get(0)).await.unwrap().into_inner().versions;
    let left_out: Vec<u32> = versions.iter().filter(|v| v.schema_left_out).map(|v| v.version).collect();
    assert_eq!((versions.len(), left_out.is_empty(), versions[0].schema_left_out), (55, false, false));
    let one = types.get_event_type(get(left_out[0])).await.unwrap().into_inner().versions;
    assert_eq!((one.len(), one[0].version, one[0].schema.len() > 64_000), (1, left_out[0], true));
    assert_eq!(types.get_event_type(get(99)).await.unwrap_err().code(), Code::NotFound);

    let value = |n: usize| proto::MetricValue { date: "never".to_owned(), name: format!("m {n}"), value: f64::NAN };
    let request = proto::PutMetricsRequest { metrics: (0..1_000).map(value).collect() };
    let refused = MetricsServiceClient::new(service.channel().await).put_metrics(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.details().len() < 4_096 + 512, "{}", refused.details().len());
    let details = refused.get_error_details();
    let named = details.bad_request().unwrap().field_violations.len();
    let left_out: usize = details.error_info().unwrap().metadata["fields_left_out"].parse().unwrap();
    assert_eq!(named + left_out, 3_000);
}
