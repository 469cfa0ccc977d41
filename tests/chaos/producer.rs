//! Producers: they send what their script says, through their door, until each
//! event has its verdict.
//!
//! They do what the protocol asks of them: after any error or lost connection,
//! everything is sent again that was not answered. Some events are not, as by
//! a producer that died.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tallyhouse::transport::proto::ingest_service_client::IngestServiceClient;
use tallyhouse::transport::proto::{
    Durability, EventResult, IngestBatchRequest, IngestRequest, IngestResponse, RejectionCode, Verdict, VerdictCounts,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::event::{Draft, Flaw};
use crate::fault::{Kind, Tally};
use crate::oracle::{Oracle, ReportedVerdict};
use crate::workload::{Batch, Door, Script};

/// The first pause before something is sent again. It doubles until something
/// is answered, and some of it is chance, as the protocol asks: producers that
/// a full index refuses all at once must not come back all at once.
const PAUSE: Duration = Duration::from_millis(15);
/// How often it doubles at most.
const DOUBLINGS_MAX: u32 = 5;
/// Longest an answer is waited for.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(3);
/// Batches on a stream that wait for their answers.
const IN_FLIGHT_MAX: usize = 6;

/// Where the service is; none while it is down.
pub(crate) type Address = watch::Receiver<Option<String>>;

/// What all producers of a day share.
pub(crate) struct Field {
    pub(crate) drafts: Vec<Draft>,
    pub(crate) oracle: Oracle,
    pub(crate) tally: Arc<Tally>,
}

/// Sends a script to its end.
pub(crate) async fn produce(field: Arc<Field>, script: Script, address: Address) {
    let Script { door, batches, pause, cuts_after } = script;
    let todo = batches.into();
    let mut producer = Producer { field, todo, pause, cuts_after, sent: 0, failures: 0, address };
    match door {
        Door::Stream => producer.stream().await,
        Door::Unary => producer.unary().await,
        Door::Rest => producer.rest().await,
    }
}

struct Producer {
    field: Arc<Field>,
    todo: VecDeque<Batch>,
    pause: Duration,
    cuts_after: Option<usize>,
    /// Batches so far, repeated ones included.
    sent: usize,
    /// Attempts in a row without an answer.
    failures: u32,
    address: Address,
}

/// A batch on its way.
struct InFlight {
    sequence: u64,
    batch: Batch,
    begun: u64,
}

impl Producer {
    /// Where the service is, once it is somewhere.
    async fn url(&mut self) -> String {
        let known = self.address.wait_for(Option::is_some).await;
        known.ok().and_then(|url| url.clone()).unwrap_or_default()
    }

    async fn connect(&mut self) -> Option<IngestServiceClient<Channel>> {
        let url = self.url().await;
        let endpoint = Endpoint::from_shared(url).ok()?.connect_timeout(Duration::from_secs(2));
        match endpoint.connect().await {
            Ok(channel) => Some(IngestServiceClient::new(channel)),
            Err(_) => {
                self.back_off().await;
                None
            }
        }
    }

    /// The pause before something is sent again.
    async fn back_off(&mut self) {
        let longest = PAUSE * 2_u32.pow(self.failures.min(DOUBLINGS_MAX));
        self.failures += 1;
        tokio::time::sleep(longest.mul_f32(rand::random_range(0.5..1.0))).await;
    }

    /// Takes the next batch; the pause before it is part of the script.
    async fn next(&mut self) -> Option<Batch> {
        let batch = self.todo.pop_front()?;
        tokio::time::sleep(self.pause).await;
        self.sent += 1;
        Some(batch)
    }

    /// Whether it is time to drop the connection.
    fn cuts_now(&mut self) -> bool {
        let cuts = self.cuts_after.is_some_and(|after| self.sent >= after);
        if cuts {
            self.cuts_after = None;
            self.field.tally.add(Kind::CutProducer);
        }
        cuts
    }

    async fn stream(&mut self) {
        while !self.todo.is_empty() {
            let Some(mut client) = self.connect().await else { continue };
            let (requests, received) = mpsc::channel(1);
            let opened = client.ingest(ReceiverStream::new(received)).await;
            match opened {
                Ok(answers) => self.session(requests, answers.into_inner()).await,
                Err(status) => self.field.note(&status),
            }
            self.back_off().await;
        }
    }

    /// One stream, until it breaks or everything is settled.
    async fn session(&mut self, requests: mpsc::Sender<IngestRequest>, mut answers: Streaming<IngestResponse>) {
        let session = self.field.oracle.session();
        let mut in_flight: VecDeque<InFlight> = VecDeque::new();
        let mut sequence = 0;
        while !(self.todo.is_empty() && in_flight.is_empty()) {
            let answer = if self.todo.is_empty() || in_flight.len() >= IN_FLIGHT_MAX {
                Some(tokio::time::timeout(ANSWER_WAIT_MAX, answers.next()).await.unwrap_or(None))
            } else {
                tokio::select! {
                    answer = answers.next() => Some(answer),
                    () = tokio::time::sleep(self.pause) => None,
                }
            };
            match answer {
                Some(Some(Ok(answer))) => {
                    let Some(first) = in_flight.pop_front() else {
                        self.field.oracle.complain(format!("an answer to nothing: sequence {}", answer.sequence));
                        break;
                    };
                    if answer.sequence != first.sequence {
                        let complaint = format!("sequence {} where {} was due", answer.sequence, first.sequence);
                        self.field.oracle.complain(complaint);
                    }
                    self.answered(session, first.begun, first.batch, answer.counts, &answer.results);
                }
                Some(broken) => {
                    if let Some(Err(status)) = broken {
                        self.field.note(&status);
                    }
                    break;
                }
                None => {
                    let Some(batch) = self.todo.pop_front() else { continue };
                    self.sent += 1;
                    sequence += 1;
                    let request =
                        IngestRequest { sequence, events: self.field.events(&batch), durability: durability(&batch) };
                    in_flight.push_back(InFlight { sequence, batch, begun: self.field.oracle.now() });
                    let sent = tokio::time::timeout(ANSWER_WAIT_MAX, requests.send(request)).await;
                    if !matches!(sent, Ok(Ok(()))) || self.cuts_now() {
                        break;
                    }
                }
            }
        }
        for InFlight { batch, begun, .. } in in_flight.into_iter().rev() {
            self.lost(session, begun, batch);
        }
    }

    async fn unary(&mut self) {
        let mut session = self.field.oracle.session();
        let mut client = None;
        while let Some(batch) = self.next().await {
            let begun = self.field.oracle.now();
            let Some(mut connected) = (match client.take() {
                Some(client) => Some(client),
                None => {
                    session = self.field.oracle.session();
                    self.connect().await
                }
            }) else {
                self.todo.push_front(batch);
                continue;
            };
            let request = IngestBatchRequest {
                events: self.field.events(&batch),
                durability: durability(&batch),
                ..Default::default()
            };
            // A call that is dropped in the middle is a connection that was
            // cut.
            let wait_max = if self.cuts_now() { Duration::from_millis(1) } else { ANSWER_WAIT_MAX };
            match tokio::time::timeout(wait_max, connected.ingest_batch(request)).await {
                Ok(Ok(answer)) => {
                    let answer = answer.into_inner();
                    self.answered(session, begun, batch, answer.counts, &answer.results);
                    client = Some(connected);
                }
                Ok(Err(status)) => {
                    self.field.note(&status);
                    self.lost(session, begun, batch);
                    self.back_off().await;
                }
                Err(_) => self.lost(session, begun, batch),
            }
        }
    }

    async fn rest(&mut self) {
        let (mut session, mut last_url) = (0, String::new());
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WAIT_MAX).build().unwrap();
        while let Some(batch) = self.next().await {
            let url = self.url().await;
            if url != last_url {
                (session, last_url) = (self.field.oracle.session(), url.clone());
            }
            let begun = self.field.oracle.now();
            let body = self.field.drafts[batch.drafts[0]].json();
            let answer = async {
                let answer = http.post(format!("{url}/events")).json(&body).send().await?;
                let status = answer.status().as_u16();
                Ok::<_, reqwest::Error>((status, answer.text().await?))
            };
            let told = match answer.await {
                Ok((status, text)) => self.field.rest_verdict(status, &text),
                Err(_) => None,
            };
            match told {
                Some(told) => self.told(session, begun, batch, &[told]),
                None => {
                    self.lost(session, begun, batch);
                    self.back_off().await;
                }
            }
        }
    }

    /// A batch got its answer.
    fn answered(
        &mut self,
        session: u64,
        begun: u64,
        batch: Batch,
        counts: Option<VerdictCounts>,
        results: &[EventResult],
    ) {
        let mut told = vec![ReportedVerdict::Accepted; batch.drafts.len()];
        for result in results {
            match told.get_mut(result.index as usize) {
                Some(told) => *told = verdict(result),
                None => self.field.oracle.complain(format!("a result for event {} of a batch", result.index)),
            }
        }
        let of = |is: fn(&ReportedVerdict) -> bool| told.iter().filter(|told| is(told)).count() as u32;
        let expected = VerdictCounts {
            accepted: of(|told| *told == ReportedVerdict::Accepted),
            duplicate: of(|told| *told == ReportedVerdict::Duplicate),
            conflict: of(|told| *told == ReportedVerdict::Conflict),
            rejected: of(|told| matches!(told, ReportedVerdict::Rejected(_))),
            undecided: of(|told| *told == ReportedVerdict::Undecided),
        };
        if counts != Some(expected) {
            self.field.oracle.complain(format!("counts {counts:?} for results {expected:?}"));
        }
        self.told(session, begun, batch, &told);
    }

    /// A batch got its verdicts. What is undecided is sent again later.
    fn told(&mut self, session: u64, begun: u64, batch: Batch, told: &[ReportedVerdict]) {
        self.failures = 0;
        let Field { oracle, tally, .. } = &*self.field;
        oracle.answered(session, begun, batch.drafts.iter().copied().zip(told.iter().copied().map(Some)));
        let undecided: Vec<usize> = batch
            .drafts
            .iter()
            .zip(told)
            .filter(|(_, told)| **told == ReportedVerdict::Undecided)
            .map(|(draft, _)| *draft)
            .collect();
        tally.add_many(Kind::Undecided, undecided.len() as u64);
        oracle.settle(told.len() - undecided.len());
        // REST takes one event a call, and so had one.
        if !undecided.is_empty() {
            self.todo.push_back(Batch { drafts: undecided, ..batch });
        }
    }

    /// A batch got no answer.
    fn lost(&mut self, session: u64, begun: u64, batch: Batch) {
        self.field.oracle.answered(session, begun, batch.drafts.iter().map(|draft| (*draft, None)));
        if batch.is_forgotten {
            self.field.oracle.settle(batch.drafts.len());
        } else {
            self.todo.push_front(batch);
        }
    }
}

impl Field {
    fn events(&self, batch: &Batch) -> Vec<tallyhouse::transport::proto::Event> {
        batch.drafts.iter().map(|draft| self.drafts[*draft].proto()).collect()
    }

    /// Looks at an error: some are never right.
    pub(crate) fn note(&self, status: &Status) {
        let from_service = status.get_error_details().error_info().is_some();
        if from_service && !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable) {
            self.oracle.complain(format!("{status}"));
        }
        self.note_text(status.message());
    }

    fn note_text(&self, text: &str) {
        for (part, kind) in [("the log holds", Kind::LogFull), ("index_ids_max", Kind::IndexFull)] {
            if text.contains(part) {
                self.tally.add(kind);
            }
        }
    }

    /// None: the event is to be sent again.
    fn rest_verdict(&self, status: u16, text: &str) -> Option<ReportedVerdict> {
        let body: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
        let told = match (status, body["status"].as_str(), body["error"]["code"].as_str()) {
            (202, Some("accepted"), _) => ReportedVerdict::Accepted,
            (202, Some("duplicate"), _) => ReportedVerdict::Duplicate,
            (202, Some("conflict"), _) => ReportedVerdict::Conflict,
            (422, _, Some("VALIDATION_ERROR")) => ReportedVerdict::Rejected(rest_flaw(text)),
            (503, _, Some("UNAVAILABLE")) if text.contains("is new cannot be told") => ReportedVerdict::Undecided,
            (503, _, Some("OVERLOADED" | "UNAVAILABLE")) => {
                self.note_text(text);
                return None;
            }
            _ => {
                self.oracle.complain(format!("REST answered {status}: {text}"));
                return None;
            }
        };
        Some(told)
    }
}

/// REST names no code, but says what is wrong with the time.
fn rest_flaw(text: &str) -> Flaw {
    if text.contains("minutes ahead") {
        Flaw::InFuture
    } else if text.contains("days ago") {
        Flaw::TooOld
    } else {
        Flaw::Invalid
    }
}

fn durability(batch: &Batch) -> i32 {
    if batch.stored { Durability::Stored.into() } else { Durability::Logged.into() }
}

/// What a result says.
pub(crate) fn verdict(result: &EventResult) -> ReportedVerdict {
    match (result.verdict(), result.code()) {
        (Verdict::Accepted | Verdict::Unspecified, _) => ReportedVerdict::Accepted,
        (Verdict::Duplicate, _) => ReportedVerdict::Duplicate,
        (Verdict::Conflict, _) => ReportedVerdict::Conflict,
        (Verdict::Undecided, _) => ReportedVerdict::Undecided,
        (Verdict::Rejected, RejectionCode::TooOld) => ReportedVerdict::Rejected(Flaw::TooOld),
        (Verdict::Rejected, RejectionCode::InFuture) => ReportedVerdict::Rejected(Flaw::InFuture),
        (Verdict::Rejected, _) => ReportedVerdict::Rejected(Flaw::Invalid),
    }
}
