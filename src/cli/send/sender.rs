//! Sends batches over the `Ingest` stream until each has its answer, and continues after lost
//! connections, restarts and a full log.

use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use futures_util::{StreamExt as _, TryFutureExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::backoff::Backoff;
use super::in_flight::InFlight;
use super::progress::Progress;
use super::reader::Batch;
use super::report::{ConflictingLine, RejectedLine, Report, Summary};
use crate::cli::connection::{Connection, explain};
use crate::cli::time_args::readable_duration;
use crate::transport::proto;
use crate::transport::proto::ingest_service_client::IngestServiceClient;

/// How long to wait before undecided events are sent again: they wait for ClickHouse to come back.
const UNDECIDED_PAUSE: Duration = Duration::from_secs(1);
/// Largest answer that is read, in bytes: one that rejects each event of the
/// largest batch for every field.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Options of sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct SenderSettings {
    /// The requested durability.
    pub(super) durability: proto::Durability,
    /// Batches that can wait for their answers at a time.
    pub(super) batches_in_flight_max: usize,
    /// How long to continue without progress. None: without limit.
    pub(super) retry_for: Option<Duration>,
}

/// How one connection ended.
enum ConnectionEnd {
    /// All batches are answered.
    Done,
    /// Batches are left for another connection.
    Lost(Status),
}

/// Sends the batches of a channel.
pub(super) struct Sender<'a> {
    client: IngestServiceClient<Connection>,
    sending: SenderSettings,
    batches: mpsc::Receiver<Batch>,
    has_source_ended: bool,
    flight: InFlight<Batch>,
    backoff: Backoff,
    /// When an event was last decided, or started to wait for a decision.
    progressed: Instant,
    reconnects: u64,
    /// The known obstacle to progress.
    obstacle: Option<String>,
    report: Report,
    progress: &'a Progress,
}

impl<'a> Sender<'a> {
    /// Sends what comes out of `batches`.
    pub(super) fn new(
        channel: Connection,
        sending: SenderSettings,
        batches: mpsc::Receiver<Batch>,
        report: Report,
        progress: &'a Progress,
    ) -> Self {
        Self {
            client: IngestServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            sending,
            batches,
            has_source_ended: false,
            flight: InFlight::new(sending.batches_in_flight_max),
            backoff: Backoff::default(),
            progressed: Instant::now(),
            reconnects: 0,
            obstacle: None,
            report,
            progress,
        }
    }

    /// Sends until every batch has its answer. The summary is valid even if there is an error.
    pub(super) async fn run(mut self) -> (Summary, anyhow::Result<()>) {
        let started = Instant::now();
        let result = self.send_all().await;
        let flushed = self.report.flush().context("cannot write the rejected lines");
        let mut counts = self.report.counts;
        let (unanswered, postponed) = self.flight.held();
        counts.unanswered = unanswered.map(|batch| batch.lines() as u64).sum();
        counts.undecided = postponed.map(|batch| batch.lines() as u64).sum();
        let summary = Summary {
            counts,
            reconnects: self.reconnects,
            elapsed: started.elapsed(),
            first_rejected: self.report.first_rejected,
            first_conflicts: self.report.first_conflicts,
            unknown_fields: self.report.unknown_fields,
        };
        (summary, result.and(flushed))
    }

    async fn send_all(&mut self) -> anyhow::Result<()> {
        loop {
            if self.flight.is_empty() {
                // No stream is kept open for nothing.
                match self.batches.recv().await {
                    Some(batch) => self.take(batch),
                    None => return Ok(()),
                }
            }
            match self.stream().await? {
                ConnectionEnd::Done => return Ok(()),
                ConnectionEnd::Lost(status) => self.pause(&status).await?,
            }
        }
    }

    /// Sends and receives on one connection until it ends.
    async fn stream(&mut self) -> anyhow::Result<ConnectionEnd> {
        self.flight.reconnect();
        let (requests, outgoing) = mpsc::channel(1);
        let mut client = self.client.clone();
        // The call may return only when the first request has arrived, so it
        // must not be waited for before requests are sent.
        let answers =
            async move { client.ingest(ReceiverStream::new(outgoing)).await.map(tonic::Response::into_inner) };
        let answers = answers.try_flatten_stream();
        tokio::pin!(answers);
        let mut is_writable = true;
        while !(self.has_source_ended && self.flight.is_empty()) {
            let (due, deadline) = (self.flight.next_due(), self.deadline());
            tokio::select! {
                answer = answers.next() => match answer {
                    Some(Ok(answer)) => self.answered(answer)?,
                    Some(Err(status)) => return Ok(ConnectionEnd::Lost(status)),
                    None => return Ok(ConnectionEnd::Lost(Status::unavailable("the service ended the stream"))),
                },
                permit = requests.reserve(), if is_writable && self.flight.has_unsent() => match permit {
                    Ok(permit) => {
                        if let Some(request) = self.next_request() {
                            permit.send(request);
                        }
                    }
                    // The connection is gone; the answers will end by saying why.
                    Err(_) => is_writable = false,
                },
                batch = self.batches.recv(), if !self.has_source_ended && self.flight.has_room() => match batch {
                    Some(batch) => self.take(batch),
                    None => self.has_source_ended = true,
                },
                () = until(due) => self.flight.revive(Instant::now()),
                () = until(deadline) => return Err(self.stuck()),
            }
        }
        Ok(ConnectionEnd::Done)
    }

    fn take(&mut self, batch: Batch) {
        if self.flight.is_empty() {
            self.progressed = Instant::now();
        }
        self.flight.push(batch);
    }

    fn next_request(&mut self) -> Option<proto::IngestRequest> {
        let durability = self.sending.durability.into();
        let (sequence, batch) = self.flight.next_to_send()?;
        Some(proto::IngestRequest { sequence, events: batch.events.clone(), durability })
    }

    /// Records the verdicts of a batch.
    fn answered(&mut self, answer: proto::IngestResponse) -> anyhow::Result<()> {
        let mut batch = self.flight.answered(answer.sequence)?;
        let counts = answer.counts.unwrap_or_default();
        let total = [counts.accepted, counts.duplicate, counts.conflict, counts.rejected, counts.undecided];
        let total: u64 = total.into_iter().map(u64::from).sum();
        let events = batch.events.len();
        ensure!(total == events as u64, "the service answered for {total} events of a batch of {events}");
        let announced = (counts.rejected as usize, counts.undecided as usize);

        let mut rejected = std::mem::take(&mut batch.unreadable);
        let unreadable = rejected.len();
        let (mut undecided, mut conflicts) = (Vec::new(), Vec::new());
        for result in answer.results {
            let index = usize::try_from(result.index)?;
            let origin = batch.origins.get_mut(index).context("the service answered for an event it was not sent")?;
            match result.verdict() {
                proto::Verdict::Rejected => {
                    rejected.push(RejectedLine::by_service(origin.line, result, std::mem::take(&mut origin.text)));
                }
                proto::Verdict::Undecided => undecided.push(index),
                proto::Verdict::Conflict => {
                    conflicts.push(ConflictingLine { line: origin.line, event_id: result.event_id });
                }
                _ => {}
            }
        }
        let named = (rejected.len() - unreadable, undecided.len());
        ensure!(named == announced, "the service's counts do not match its results: {announced:?}, {named:?}");
        rejected.sort_by_key(|line| line.line);
        let decided = rejected.len() + (events - undecided.len());
        self.report.counts.accepted += u64::from(counts.accepted);
        self.report.counts.duplicate += u64::from(counts.duplicate);
        self.report.counts.conflict += u64::from(counts.conflict);
        self.report.unknown_fields.absorb(std::mem::take(&mut batch.unknown_fields));
        for line in conflicts {
            self.report.conflict(line).context("cannot write the conflicting lines")?;
        }
        for line in rejected {
            self.report.reject(line).context("cannot write the rejected lines")?;
        }
        if decided > 0 {
            self.progressed = Instant::now();
            self.backoff.reset();
            self.obstacle = None;
        }
        self.progress.advance(batch.source_bytes, &self.report.counts);
        if !undecided.is_empty() {
            self.obstacle = Some("the service cannot decide some events at the moment".to_owned());
            self.flight.postpone(Instant::now() + UNDECIDED_PAUSE, batch.only(&undecided));
        }
        Ok(())
    }

    /// Waits before the next connection. Fails if another attempt is pointless or the time is over.
    async fn pause(&mut self, status: &Status) -> anyhow::Result<()> {
        if self.flight.is_empty() {
            return Ok(());
        }
        if !is_worth_retrying(status.code()) {
            return Err(explain(status));
        }
        let reason = explain(status).to_string();
        if self.backoff.is_fresh() {
            self.progress.tell(&format!("interrupted ({reason}); retrying"));
        }
        self.obstacle = Some(reason);
        if self.deadline().is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(self.stuck());
        }
        self.reconnects += 1;
        let asked = status.get_details_retry_info().and_then(|info| info.retry_delay);
        let again = Instant::now() + self.backoff.next_pause(asked);
        tokio::time::sleep_until(self.deadline().map_or(again, |deadline| again.min(deadline))).await;
        Ok(())
    }

    /// When to give up, unless there is progress.
    fn deadline(&self) -> Option<Instant> {
        let retry_for = self.sending.retry_for.filter(|_| !self.flight.is_empty())?;
        self.progressed.checked_add(retry_for)
    }

    fn stuck(&self) -> anyhow::Error {
        let retry_for = readable_duration(self.sending.retry_for.unwrap_or_default());
        let obstacle = self.obstacle.as_deref().unwrap_or("the service does not answer");
        anyhow!(
            "gave up after {retry_for} without progress (--retry-for): {obstacle}; send the same again later, \
             nothing is counted twice"
        )
    }
}

/// Whether the same request may succeed later. Lost connections have several codes, so this lists
/// the codes that no repetition can fix.
const fn is_worth_retrying(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated
    )
}

/// Waits until this time, or forever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
