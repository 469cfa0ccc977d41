//! `IngestService`: receives events.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, Stream, unfold};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::auth_layer;
use super::convert::{self, Results};
use crate::domain::{Error, OrgId};
use crate::event_intake::{BatchResults, EventBatch, Idempotency, PendingBatch};
use crate::idempotency::IdempotencyKey;
use crate::trace::FutureExt as _;
use crate::transport::auth::Caller;
use crate::transport::context::{StreamPermit, TransportContext};
use crate::transport::error::status;
use crate::transport::proto;
use crate::transport::proto::ingest_service_server::IngestService;
use crate::transport::proto::{IngestBatchRequest, IngestBatchResponse, IngestRequest, IngestResponse};

/// When the caller of a stream that was idle may open another.
const REOPEN_AFTER: Duration = Duration::from_millis(1);

/// Implements `IngestService`: the stream `Ingest` and the unary `IngestBatch`. Requires the scope
/// `ingest`.
pub(super) struct Ingest {
    context: Arc<TransportContext>,
}

impl Ingest {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl IngestService for Ingest {
    type IngestStream = BoxStream<'static, Result<IngestResponse, Status>>;

    async fn ingest(&self, request: Request<Streaming<IngestRequest>>) -> Result<Response<Self::IngestStream>, Status> {
        let context = &self.context;
        let caller = super::caller(&request)?;
        let place = context.begin_stream(&request, &caller).map_err(status::of)?;
        // One more batch is in the hands of the one who answers.
        let in_line_max = context.app.config.stream_batches_in_flight_max.saturating_sub(1).max(1);
        let (turns, answered) = mpsc::channel(in_line_max);
        let reader = Reader { context: Arc::clone(context), caller, requests: request.into_inner(), turns };
        tokio::spawn(reader.run().with_current_context().in_current_span());
        Ok(Response::new(answers(answered, place).boxed()))
    }

    async fn ingest_batch(
        &self,
        request: Request<IngestBatchRequest>,
    ) -> Result<Response<IngestBatchResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let IngestBatchRequest { events, durability, idempotency_key } = request.into_inner();
        let key = read_key(&idempotency_key).map_err(status::of)?;
        let pending = submit(&self.context, &org_id, key.as_ref(), events, durability).await.map_err(status::of)?;
        let Answer { counts, results: Results { results, without_details }, is_replayed } =
            pending.answer().await.map_err(status::of)?;
        Ok(Response::new(IngestBatchResponse {
            counts: Some(counts),
            results,
            replayed: is_replayed,
            results_without_details: without_details,
        }))
    }
}

/// A batch that is on its way to the disk.
struct Pending {
    /// The events' ids as they were sent: all that an answer needs of them.
    event_ids: Vec<String>,
    batch: PendingBatch,
}

/// What is said of a batch.
struct Answer {
    counts: proto::VerdictCounts,
    results: Results,
    is_replayed: bool,
}

impl Pending {
    async fn answer(self) -> Result<Answer, Error> {
        let BatchResults { verdicts, counts, made_event_ids, is_replayed } = self.batch.results().await?;
        let mut event_ids = self.event_ids;
        for (event_id, made) in event_ids.iter_mut().zip(made_event_ids) {
            if let Some(made) = made {
                *event_id = made;
            }
        }
        Ok(Answer { counts: convert::counts(counts), results: convert::results(event_ids, verdicts), is_replayed })
    }
}

async fn submit(
    context: &TransportContext,
    org_id: &OrgId,
    key: Option<&IdempotencyKey>,
    events: Vec<proto::Event>,
    durability: i32,
) -> Result<Pending, Error> {
    let batch = EventBatch {
        org_id,
        drafts: convert::drafts(&events, context.app.config.properties_bytes_max),
        bytes: convert::bytes(&events),
        idempotency: key.map(|key| Idempotency { key, body_hash: None }),
        durability: convert::durability(durability)?,
    };
    let batch = context.app.intake.submit(batch).await?;
    let event_ids = events.into_iter().map(|event| event.event_id).collect();
    Ok(Pending { event_ids, batch })
}

/// The key that makes a call repeatable, if it has one.
fn read_key(key: &str) -> Result<Option<IdempotencyKey>, Error> {
    if key.is_empty() {
        return Ok(None);
    }
    let wrong = || Error::invalid_field("idempotency_key", IdempotencyKey::EXPECTED);
    IdempotencyKey::parse(key).map(Some).ok_or_else(wrong)
}

/// What is to be sent next.
enum Turn {
    /// The answer to the batch of this sequence, once there is one.
    Answer(u64, Pending),
    /// An error; the stream ends with it.
    Fail(Status),
    /// Nothing more; the stream ends well.
    End,
}

/// Reads a stream's requests, as far ahead of its answers as there is room in
/// line. It runs by itself: a batch that waits for its turn to be logged must
/// not depend on whether its own caller takes answers, or one caller could make
/// all others wait.
struct Reader {
    context: Arc<TransportContext>,
    caller: Caller,
    requests: Streaming<IngestRequest>,
    turns: mpsc::Sender<Turn>,
}

impl Reader {
    async fn run(mut self) {
        let last = self.read().await;
        let Some(last) = last else { return };
        if self.turns.send(last).await.is_ok() {
            // The requests are kept until the last answer is out: dropping them
            // earlier resets the stream.
            self.turns.closed().await;
        }
    }

    /// Reads until the stream is to end, and says how; none when the caller has
    /// gone.
    async fn read(&mut self) -> Option<Turn> {
        let mut end = std::pin::pin!(self.context.drain.end_of_stream());
        let mut expired = std::pin::pin!(self.caller.expired());
        let idle_max = Duration::from_millis(self.context.app.config.stream_idle_ms_max);
        let mut last_request = Instant::now();
        let mut idle = std::pin::pin!(sleep(idle_max));
        loop {
            // Room first: what is read must have a place in line.
            let room = self.turns.reserve().await.ok()?;
            let request = tokio::select! {
                biased;
                () = &mut end => return Some(Turn::End),
                error = &mut expired => return Some(Turn::Fail(status::of(error))),
                () = &mut idle, if !idle_max.is_zero() => {
                    // Set once, and not again for each request.
                    let until = last_request + idle_max;
                    if until <= Instant::now() {
                        return Some(Turn::Fail(status::of(idle_for(idle_max))));
                    }
                    idle.as_mut().reset(until);
                    continue;
                }
                request = self.requests.message() => request,
            };
            last_request = Instant::now();
            let IngestRequest { sequence, events, durability } = match request {
                Ok(Some(request)) => request,
                Ok(None) => return Some(Turn::End),
                Err(error) => return Some(Turn::Fail(auth_layer::unreadable(&error).map_or(error, status::of))),
            };
            match submit(&self.context, &self.caller.org_id, None, events, durability).await {
                Ok(pending) => room.send(Turn::Answer(sequence, pending)),
                Err(error) => return Some(Turn::Fail(status::of(error))),
            }
        }
    }
}

/// Why a stream ends on which nothing was sent. Whatever was has been answered.
fn idle_for(idle_max: Duration) -> Error {
    let message = format!("nothing was sent for {} milliseconds: open another stream", idle_max.as_millis());
    Error::unavailable(message, REOPEN_AFTER)
}

/// The answers in order.
fn answers(turns: mpsc::Receiver<Turn>, place: StreamPermit) -> impl Stream<Item = Result<IngestResponse, Status>> {
    unfold(Some((turns, place)), |open| async move {
        let (mut turns, place) = open?;
        match turns.recv().await {
            Some(Turn::Answer(sequence, pending)) => match pending.answer().await {
                Ok(Answer { counts, results: Results { results, without_details }, .. }) => {
                    let response = IngestResponse {
                        sequence,
                        counts: Some(counts),
                        results,
                        results_without_details: without_details,
                    };
                    Some((Ok(response), Some((turns, place))))
                }
                Err(error) => Some((Err(status::of(error)), None)),
            },
            Some(Turn::Fail(status)) => Some((Err(status), None)),
            Some(Turn::End) => None,
            // The reader panicked, which the log has.
            None => Some((Err(status::of(Error::internal())), None)),
        }
    })
}
