//! Spans: from the call that came with a trace to the insert that its events
//! went into.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use parking_lot::Mutex;
use serde_json::json;
use tallyhouse::transport::proto::{self, IngestBatchRequest, IngestRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::events::{click, clicks, now_millis};
use crate::service::{PATIENCE, TestService, eventually};

/// Takes spans as a collector does.
#[derive(Clone, Default)]
pub(crate) struct Collector {
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.requests.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub(crate) async fn listen() -> (Self, SocketAddr) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// The first span of which this is so.
    pub(crate) async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(span) = self.spans().into_iter().find(|span| is_it(span)) {
                return span;
            }
            let names: Vec<String> = self.spans().into_iter().map(|span| span.name).collect();
            assert!(Instant::now() < deadline, "no span {what} among {names:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

pub(crate) fn text(span: &Span, key: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

/// The names of all its attributes, in order.
fn keys(span: &Span) -> Vec<&str> {
    let mut keys: Vec<&str> = span.attributes.iter().map(|attribute| &*attribute.key).collect();
    keys.sort_unstable();
    keys
}

/// A trace that somebody else has begun: its id, its span's, and the header.
pub(crate) fn begun(n: u8) -> ([u8; 16], [u8; 8], String) {
    let (trace, span) = ([n; 16], [n + 1; 8]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let header = format!("00-{}-{}-01", hex(&trace), hex(&span));
    (trace, span, header)
}

async fn traced_house() -> (TestService, Collector) {
    traced_house_with(&[]).await
}

/// With more settings.
pub(crate) async fn traced_house_with(more: &[(&str, &str)]) -> (TestService, Collector) {
    let (collector, address) = Collector::listen().await;
    let endpoint = format!("http://{address}");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
        ("TALLYHOUSE_TRACE_RATIO", "0"),
    ];
    (TestService::with(&[&settings, more].concat()).await, collector)
}

/// The parts of a call that brought an event, and the insert that is linked to
/// it.
async fn assert_parts(collector: &Collector, call: &Span) {
    let parts: [(&str, &[&str]); 3] = [
        ("deduplicate", &["tallyhouse.batch.events"]),
        ("log queue", &[]),
        ("log append", &["tallyhouse.log.group.events", "tallyhouse.segment.id"]),
    ];
    for (name, attributes) in parts {
        let part = collector.span(name, |span| span.name == name && span.parent_span_id == call.span_id).await;
        assert_eq!(part.trace_id, call.trace_id, "{name}");
        assert!(part.start_time_unix_nano >= call.start_time_unix_nano, "{name}");
        assert!(part.end_time_unix_nano <= call.end_time_unix_nano, "{name}");
        assert_eq!(
            (keys(&part).as_slice(), part.events.len(), part.kind()),
            (attributes, 0, SpanKind::Internal),
            "{name}"
        );
    }
    let insert = collector
        .span("linked insert", |span| {
            let is_linked =
                span.links.iter().any(|link| link.span_id == call.span_id && link.trace_id == call.trace_id);
            span.name == "INSERT events" && is_linked
        })
        .await;
    assert_eq!(insert.kind(), SpanKind::Client);
    assert_eq!(text(&insert, "db.system.name").as_deref(), Some("clickhouse"));
    assert_eq!(text(&insert, "db.operation.name").as_deref(), Some("INSERT"));
    assert_eq!(keys(&insert), ["db.operation.name", "db.system.name"]);
    assert_ne!(insert.trace_id, call.trace_id, "it serves many calls, and so is of none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_trace_goes_on_to_the_insert_over_rest_and_grpc() {
    let (service, collector) = traced_house().await;
    let now = now_millis();

    let (trace, parent, header) = begun(0x10);
    let time = time::OffsetDateTime::from_unix_timestamp(now / 1_000).unwrap();
    let occurred_at = time.format(&time::format_description::well_known::Rfc3339).unwrap();
    let event =
        json!({"event_id": "rest", "type": "click", "campaign_id": "c", "source": "s", "occurred_at": occurred_at});
    let post = service.http.post(format!("{}/events?secret=1", service.url)).header("traceparent", header).json(&event);
    assert_eq!(post.send().await.unwrap().status(), 202);
    let call = collector.span("of REST", |span| span.trace_id == trace && span.parent_span_id == parent).await;
    assert_eq!((&*call.name, call.kind()), ("POST /events", SpanKind::Server));
    assert_eq!(text(&call, "http.request.method").as_deref(), Some("POST"));
    assert_eq!(text(&call, "http.route").as_deref(), Some("/events"));
    assert_eq!(text(&call, "http.response.status_code").as_deref(), Some("202"));
    let all =
        ["http.request.method", "http.response.status_code", "http.route", "tallyhouse.organization", "url.scheme"];
    assert_eq!(keys(&call), all);
    assert_parts(&collector, &call).await;

    let (trace, parent, header) = begun(0x20);
    let mut request =
        Request::new(IngestBatchRequest { events: vec![click("grpc", now)], ..IngestBatchRequest::default() });
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    service.ingest().await.ingest_batch(request).await.unwrap();
    let call = collector.span("of gRPC", |span| span.trace_id == trace && span.parent_span_id == parent).await;
    assert_eq!(call.name, "tallyhouse.v1.IngestService/IngestBatch");
    assert_eq!(text(&call, "rpc.system.name").as_deref(), Some("grpc"));
    assert_eq!(text(&call, "rpc.method").as_deref(), Some("tallyhouse.v1.IngestService/IngestBatch"));
    assert_eq!(text(&call, "rpc.response.status_code").as_deref(), Some("OK"));
    assert_parts(&collector, &call).await;

    let (trace, parent, header) = begun(0x30);
    let requests =
        tokio_stream::iter([IngestRequest { sequence: 1, events: vec![click("stream", now)], durability: 0 }]);
    let mut request = Request::new(requests);
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    let mut answers = service.ingest().await.ingest(request).await.unwrap().into_inner();
    assert!(answers.next().await.unwrap().is_ok() && answers.next().await.is_none());
    let call = collector.span("of the stream", |span| span.trace_id == trace && span.parent_span_id == parent).await;
    assert_parts(&collector, &call).await;

    // A question, and what ClickHouse was asked for it.
    let (trace, _, header) = begun(0x40);
    let mut request = Request::new(proto::GetTopUsersRequest::default());
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    service.query().await.get_top_users(request).await.unwrap();
    let asked = collector.span("of the question", |span| span.name == "SELECT" && span.trace_id == trace).await;
    assert_eq!(text(&asked, "db.system.name").as_deref(), Some("clickhouse"));
    assert_eq!(
        (keys(&asked).as_slice(), asked.kind()),
        (&["db.operation.name", "db.system.name"][..], SpanKind::Client)
    );

    let resources = collector.requests.lock()[0].resource_spans[0].resource.clone().unwrap();
    let about = |key: &str| {
        let found = resources.attributes.iter().find(|attribute| attribute.key == key)?;
        match found.value.clone()?.value? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    };
    assert_eq!(about("service.name").as_deref(), Some("tallyhouse"));
    assert_eq!(about("deployment.environment.name").as_deref(), Some("test"));
}

/// Everything that was sent through a proxy to this address.
async fn recorded(to: String) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let record = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&record);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (server, record) = (TcpStream::connect(&to).await.unwrap(), Arc::clone(&record));
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
                    record.lock().extend_from_slice(&buffer[..bytes]);
                    if to_server.write_all(&buffer[..bytes]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, recorded)
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_is_given_the_traces_of_inserts_and_questions() {
    let service = TestService::new().await;
    let (proxy, recorded) = recorded(service.clickhouse_url.trim_start_matches("http://").to_owned()).await;
    let (collector, address) = Collector::listen().await;
    let (proxy, endpoint) = (format!("http://{proxy}"), format!("http://{address}"));
    let settings = [
        ("TALLYHOUSE_CLICKHOUSE_URL", &*proxy),
        ("TALLYHOUSE_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("TALLYHOUSE_TRACE_RATIO", "0"),
    ];
    let second = service.second(&settings).await;
    let (trace, _, header) = begun(0x70);
    let durability = proto::Durability::Stored.into();
    let mut request = Request::new(IngestBatchRequest {
        events: vec![click("traced", now_millis())],
        durability,
        ..IngestBatchRequest::default()
    });
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    second.ingest().await.ingest_batch(request).await.unwrap();
    let mut request = Request::new(proto::GetTopUsersRequest::default());
    request.metadata_mut().insert("traceparent", begun(0x70).2.parse().unwrap());
    let mut query = proto::query_service_client::QueryServiceClient::new(second.channel().await);
    query.get_top_users(request).await.unwrap();

    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let insert = collector.span("of the insert", |span| span.name == "INSERT events").await;
    let select = collector.span("of the question", |span| span.name == "SELECT").await;
    assert_eq!(select.trace_id, trace);
    let sent = String::from_utf8_lossy(&recorded.lock()).to_ascii_lowercase();
    for span in [insert, select] {
        let header = format!("traceparent: 00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id));
        assert!(sent.contains(&header), "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_lines_name_the_call_and_its_trace_and_show_no_other_span() {
    let (mut service, collector) = traced_house().await;
    service.set("TALLYHOUSE_LOG_FORMAT", "json");
    tokio::task::block_in_place(|| service.stop());
    service.start().await;
    let (trace, _, header) = begun(0x65);
    for (id, traceparent) in [("sampled", &*header), ("unsampled", "")] {
        let request = service.http.get(format!("{}/users/top", service.url));
        let request = request.header("x-request-id", id).header("traceparent", traceparent);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    collector.span("of the call", |span| span.trace_id == trace && span.kind() == SpanKind::Server).await;
    let line = |id: &str| {
        let lines = service.stderr();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["target"] == "tallyhouse::request" && line["span"]["request_id"] == id)
    };
    eventually("both lines", || async { line("sampled").is_some() && line("unsampled").is_some() }).await;
    let trace_id: String = trace.iter().map(|byte| format!("{byte:02x}")).collect();
    let spans = json!([{"name": "request", "request_id": "sampled", "trace_id": trace_id}]);
    assert_eq!(line("sampled").unwrap()["spans"], spans);
    assert_eq!(line("unsampled").unwrap()["spans"], json!([{"name": "request", "request_id": "unsampled"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_does_not_sample_has_no_spans() {
    let (mut service, collector) = traced_house().await;
    let (_, _, header) = begun(0x50);
    let unsampled = format!("{}00", &header[..header.len() - 2]);
    for traceparent in [unsampled.as_str(), "nonsense", ""] {
        let request = service.http.get(format!("{}/users/top", service.url)).header("traceparent", traceparent);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    service.store(clicks("untraced", 10, now_millis())).await;
    // The end sends what waits: after it, nothing more can come.
    assert_eq!(tokio::task::block_in_place(|| service.stop()), Some(0));
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    // A port that takes connections and never says anything.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let settings = [("TALLYHOUSE_OTLP_ENDPOINT", &*endpoint), ("TALLYHOUSE_TRACE_RATIO", "1")];
    let mut service = TestService::with(&settings).await;
    for batch in 0..50 {
        service.store(clicks(&format!("batch-{batch}"), 10, now_millis())).await;
    }
    service.assert_counted(500).await;
    let begin = Instant::now();
    assert_eq!(tokio::task::block_in_place(|| service.stop()), Some(0));
    assert!(begin.elapsed() < PATIENCE / 2, "the end waited {:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_spans_are_sent_at_the_end() {
    let (mut service, collector) = traced_house().await;
    service.set("OTEL_BSP_SCHEDULE_DELAY", "600000");
    tokio::task::block_in_place(|| service.stop());
    service.start().await;
    let (trace, _, header) = begun(0x60);
    let request = service.http.get(format!("{}/users/top", service.url)).header("traceparent", header);
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(tokio::task::block_in_place(|| service.stop()), Some(0));
    eventually("the last spans", || async { collector.spans().iter().any(|span| span.trace_id == trace) }).await;
}
