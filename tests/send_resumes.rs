//! `tallyhouse send` against a service that fails in every way a sender can
//! meet: cut connections, UNAVAILABLE, a full log, verdicts that wait, answers
//! that are lost after the work was done.
//!
//! The service is a double with a map for its memory. That the real one counts
//! every id once is shown elsewhere; here it is about the sender losing
//! nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt as _, SeedableRng as _};
use tallyhouse::cli::connection::Address;
use tallyhouse::cli::sample::{Expected, Sample};
use tallyhouse::cli::send::{self, Files, Progress, SendOptions, Source, Summary};
use tallyhouse::cli::time_args;
use tallyhouse::domain::Timestamp;
use tallyhouse::transport::proto;
use tallyhouse::transport::proto::ingest_service_server::{IngestService, IngestServiceServer};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What the double does to its callers.
#[derive(Clone, Copy, Default)]
struct Temper {
    /// Of a hundred batches, so many end their stream in some way.
    failures_percent: u32,
    /// Of a hundred new events, so many are undecided at first.
    undecided_percent: u32,
    /// Never answers.
    is_silent: bool,
}

/// The double's memory.
#[derive(Default)]
struct Memory {
    first: HashMap<String, proto::Event>,
    /// Ids in the order in which they were accepted.
    accepted: Vec<String>,
    batches: u64,
    failures: u64,
}

struct UnreliableService {
    temper: Temper,
    now: Timestamp,
    random: Mutex<Xoshiro256PlusPlus>,
    memory: Mutex<Memory>,
    /// Cuts every connection through the proxy.
    cut: Notify,
}

impl UnreliableService {
    fn lot(&self, percent: u32) -> bool {
        self.random.lock().unwrap().random_range(0..100) < percent
    }

    /// The verdict on one event. Takes it in if it is new.
    fn judge(&self, memory: &mut Memory, event: &proto::Event) -> proto::Verdict {
        let limit = self.now.plus_millis(5 * 60_000);
        let is_timely = event.occurred_at.is_some_and(|at| time_args::from_proto(&at) <= limit);
        if event.event_id.is_empty() || event.r#type.is_empty() || !is_timely {
            return proto::Verdict::Rejected;
        }
        match memory.first.get(&event.event_id) {
            Some(first) if first == event => proto::Verdict::Duplicate,
            Some(_) => proto::Verdict::Conflict,
            None if self.lot(self.temper.undecided_percent) => proto::Verdict::Undecided,
            None => {
                memory.first.insert(event.event_id.clone(), event.clone());
                memory.accepted.push(event.event_id.clone());
                proto::Verdict::Accepted
            }
        }
    }

    fn answer(&self, request: &proto::IngestRequest) -> proto::IngestResponse {
        let mut memory = self.memory.lock().unwrap();
        memory.batches += 1;
        let mut counts = proto::VerdictCounts::default();
        let mut results = Vec::new();
        for (index, event) in (0..).zip(&request.events) {
            let verdict = self.judge(&mut memory, event);
            *match verdict {
                proto::Verdict::Accepted => &mut counts.accepted,
                proto::Verdict::Duplicate => &mut counts.duplicate,
                proto::Verdict::Conflict => &mut counts.conflict,
                proto::Verdict::Undecided => &mut counts.undecided,
                _ => &mut counts.rejected,
            } += 1;
            if verdict != proto::Verdict::Accepted {
                let event_id = event.event_id.clone();
                let mut result = proto::EventResult { index, event_id, verdict: verdict.into(), ..Default::default() };
                if verdict == proto::Verdict::Rejected {
                    result.code = proto::RejectionCode::Invalid.into();
                    result.errors =
                        vec![proto::FieldError { field: "event".to_owned(), message: "is none".to_owned() }];
                }
                results.push(result);
            }
        }
        proto::IngestResponse { sequence: request.sequence, counts: Some(counts), results, results_without_details: 0 }
    }

    /// One way to fail: how the stream ends, and whether the batch was taken
    /// before.
    fn failure(&self) -> (bool, Option<Status>) {
        let mut random = self.random.lock().unwrap();
        let was_taken = random.random();
        let status = match random.random_range(0..4) {
            0 => Some(Status::unavailable("the service is closing")),
            1 => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(20)));
                Some(Status::with_error_details(tonic::Code::ResourceExhausted, "the log is full", details))
            }
            2 => {
                self.cut.notify_waiters();
                Some(Status::internal("nobody will read this"))
            }
            // A stream that simply ends.
            _ => None,
        };
        (was_taken, status)
    }
}

#[derive(Clone)]
struct Service(Arc<UnreliableService>);

#[tonic::async_trait]
impl IngestService for Service {
    type IngestStream = ReceiverStream<Result<proto::IngestResponse, Status>>;

    async fn ingest(
        &self,
        request: Request<Streaming<proto::IngestRequest>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let (service, mut requests) = (Arc::clone(&self.0), request.into_inner());
        let (to, from) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                if service.temper.is_silent {
                    std::future::pending::<()>().await;
                }
                if service.lot(service.temper.failures_percent) {
                    service.memory.lock().unwrap().failures += 1;
                    let (was_taken, status) = service.failure();
                    if was_taken {
                        service.answer(&request);
                    }
                    if let Some(status) = status {
                        let _ = to.send(Err(status)).await;
                    }
                    return;
                }
                if to.send(Ok(service.answer(&request))).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(from)))
    }

    async fn ingest_batch(
        &self,
        _: Request<proto::IngestBatchRequest>,
    ) -> Result<Response<proto::IngestBatchResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// Opens a service behind a proxy that can cut its connections.
async fn start_unreliable_service(seed: u64, now: Timestamp, temper: Temper) -> (Arc<UnreliableService>, SocketAddr) {
    let service = Arc::new(UnreliableService {
        temper,
        now,
        random: Mutex::new(Xoshiro256PlusPlus::seed_from_u64(seed)),
        memory: Mutex::default(),
        cut: Notify::new(),
    });
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let inside_address = inside.local_addr().unwrap();
    let grpc = IngestServiceServer::new(Service(Arc::clone(&service)));
    let server = tonic::transport::Server::builder().add_service(grpc);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(inside)));

    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = outside.local_addr().unwrap();
    let for_proxy = Arc::clone(&service);
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = outside.accept().await {
            let service = Arc::clone(&for_proxy);
            tokio::spawn(async move {
                let mut connection = TcpStream::connect(inside_address).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut caller, &mut connection) => {}
                    () = service.cut.notified() => {}
                }
            });
        }
    });
    (service, address)
}

async fn send_text(address: SocketAddr, text: String, options: &SendOptions) -> (Summary, anyhow::Result<()>) {
    let source: Source = Box::pin(BufReader::new(std::io::Cursor::new(text.into_bytes())));
    let address = Address::new(address.to_string());
    send::send(&address, source, options, Files::default(), &Progress::silent(), CancellationToken::new())
        .await
        .unwrap()
}

fn options(retry_for: Duration) -> SendOptions {
    SendOptions::new(100, 8, false, retry_for)
}

/// A sample as text, and how many items of it expect which verdict.
fn sample(seed: u64, now: Timestamp, items: u64) -> (String, HashMap<String, u64>) {
    let (mut text, mut expected) = (String::new(), HashMap::new());
    for item in Sample::new(seed, now, items) {
        text.push_str(&(item.line() + "\n"));
        *expected.entry(format!("{:?}", item.expected)).or_default() += 1;
    }
    (text, expected)
}

#[tokio::test]
async fn a_kind_service_answers_as_the_sample_expects() {
    let now = time_args::now();
    let (service, address) = start_unreliable_service(1, now, Temper::default()).await;
    let (text, expected) = sample(1, now, 5_000);
    for round in 0..2 {
        let (summary, result) = send_text(address, text.clone(), &options(Duration::from_secs(10))).await;
        result.unwrap();
        let counts = &summary.counts;
        let (new, old) = if round == 0 { (expected["Accepted"], 0) } else { (0, expected["Accepted"]) };
        assert_eq!(counts.accepted, new, "round {round}");
        assert_eq!(counts.duplicate, expected["Duplicate"] + old, "round {round}");
        assert_eq!((counts.conflict, counts.rejected), (expected["Conflict"], expected["Rejected"]));
        assert_eq!((counts.undecided, counts.unanswered, summary.reconnects), (0, 0, 0));
    }
    assert_eq!(service.memory.lock().unwrap().accepted.len() as u64, expected["Accepted"]);
}

#[tokio::test]
async fn nothing_is_lost_or_overtakes_however_the_service_fails() {
    for seed in 1..=6 {
        let now = time_args::now();
        let temper = Temper { failures_percent: 15, ..Temper::default() };
        let (service, address) = start_unreliable_service(seed, now, temper).await;
        let (text, expected) = sample(seed, now, 5_000);
        let (summary, result) = send_text(address, text, &options(Duration::from_secs(30))).await;
        result.unwrap();
        let memory = service.memory.lock().unwrap();
        assert!(memory.failures > 0 && summary.reconnects > 0, "seed {seed}: nothing went wrong");
        assert_eq!(memory.accepted.len() as u64, expected["Accepted"], "seed {seed}");
        // What was taken but not answered comes back as a duplicate.
        let counts = &summary.counts;
        assert!(counts.accepted <= expected["Accepted"], "seed {seed}");
        assert_eq!(counts.accepted + counts.duplicate, expected["Accepted"] + expected["Duplicate"], "seed {seed}");
        assert_eq!((counts.conflict, counts.rejected), (expected["Conflict"], expected["Rejected"]), "seed {seed}");
        assert_eq!((counts.undecided, counts.unanswered), (0, 0), "seed {seed}");
        let in_order: Vec<String> = Sample::new(seed, now, 5_000)
            .filter(|item| item.expected == Expected::Accepted)
            .filter_map(|item| send::ndjson::parse(item.line().as_bytes()).ok())
            .map(|event| event.event_id)
            .collect();
        assert!(memory.accepted == in_order, "seed {seed}: events overtook each other");
    }
}

#[tokio::test]
async fn undecided_events_are_sent_until_they_are_decided() {
    let now = time_args::now();
    let temper = Temper { failures_percent: 5, undecided_percent: 10, ..Temper::default() };
    let (service, address) = start_unreliable_service(3, now, temper).await;
    let (text, expected) = sample(3, now, 2_000);
    let (summary, result) = send_text(address, text, &options(Duration::from_secs(30))).await;
    result.unwrap();
    assert_eq!(service.memory.lock().unwrap().accepted.len() as u64, expected["Accepted"]);
    assert_eq!((summary.counts.undecided, summary.counts.unanswered), (0, 0));
    assert_eq!(summary.counts.decided(), 2_000);
}

#[tokio::test]
async fn a_silent_service_stops_the_reading_and_is_given_up() {
    let (_house, address) =
        start_unreliable_service(4, time_args::now(), Temper { is_silent: true, ..Temper::default() }).await;
    let (mut writer, reader) = tokio::io::duplex(1_000);
    let written = tokio::spawn(async move {
        let line = format!("{{\"event_id\":\"{}\"}}\n", "x".repeat(50));
        let mut lines = 0_u64;
        while writer.write_all(line.as_bytes()).await.is_ok() {
            lines += 1;
        }
        lines
    });
    let source: Source = Box::pin(BufReader::new(reader));
    let options = options(Duration::from_secs(1));
    let address = Address::new(address.to_string());
    let (summary, result) =
        send::send(&address, source, &options, Files::default(), &Progress::silent(), CancellationToken::new())
            .await
            .unwrap();
    let error = result.unwrap_err().to_string();
    assert!(error.contains("gave up after 1s without progress"), "{error}");
    assert_eq!((summary.counts.decided(), summary.counts.unanswered), (0, 800));
    let lines = written.await.unwrap();
    // Eight batches in flight, one on its way to them, one being gathered, and
    // what the buffers hold.
    assert!(lines < 1_200, "{lines} lines were read");
}

fn command() -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn the_exit_code_tells_what_happened() {
    let (_house, address) = start_unreliable_service(5, time_args::now(), Temper::default()).await;
    let good = r#"{"event_id":"a","type":"click","occurred_at":"2026-02-10T21:07:00Z"}"#;
    let check = async |text: String, address: String, expected: i32| {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let rejected = tempfile::NamedTempFile::new().unwrap();
        let mut command = command();
        command.args(["send", "--json", "--address", &address, "--rejected"]).arg(rejected.path()).arg(file.path());
        let output = command.output().await.unwrap();
        assert_eq!(output.status.code(), Some(expected), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (summary, std::fs::read_to_string(rejected.path()).unwrap())
    };
    let (summary, rejected) = check(format!("{good}\n{good}\n"), address.to_string(), 0).await;
    assert_eq!((&summary["accepted"], &summary["duplicate"]), (&1.into(), &1.into()));
    assert_eq!(rejected, "");

    let (summary, rejected) = check(format!("{good}\nrubbish\n{{}}\n"), address.to_string(), 1).await;
    assert_eq!((&summary["rejected"], &summary["first_rejected"][1]["line"]), (&2.into(), &3.into()));
    let codes: Vec<serde_json::Value> = rejected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&codes[0]["code"], &codes[0]["text"]), (&"NOT_JSON".into(), &"rubbish".into()));
    assert_eq!((&codes[1]["code"], &codes[1]["text"]), (&"INVALID".into(), &"{}".into()));

    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    check(format!("{good}\n"), nobody.to_string(), 2).await;
}

#[tokio::test]
async fn a_pipe_that_never_ends_is_sent_as_it_comes() {
    let (service, address) = start_unreliable_service(6, time_args::now(), Temper::default()).await;
    let mut child = command().args(["send", "-", "--address", &format!("http://{address}")]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for id in ["a", "b"] {
        let line = format!("{{\"event_id\":\"{id}\",\"type\":\"click\",\"occurred_at\":\"2026-02-10T21:07:00Z\"}}\n");
        stdin.write_all(line.as_bytes()).await.unwrap();
        stdin.flush().await.unwrap();
        let arrived = async {
            while !service.memory.lock().unwrap().accepted.iter().any(|accepted| accepted == id) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), arrived).await.expect("the event was held up");
    }
    // Ctrl-C: the summary still comes, though the pipe is open.
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("accepted               2"));
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    drop(stdin);
}
