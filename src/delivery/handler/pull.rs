//! Consumers that pull: each announces how many events it can take, and acknowledges each event that it receives.
//!
//! Several consumers share a subscription. An event is leased to one of them, under the epoch of that consumer. When a
//! consumer disconnects, or does not acknowledge in time, its leases end. Later acknowledgements of these leases are refused,
//! since another consumer may have the event by then. The end of a lease is a failed attempt, unless the service itself
//! ends the stream ([`Consumer::release`]).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Delivery, Handler, Outcome};
use crate::engine::Clock;

/// Events that a consumer can have room for at a time.
pub const CREDITS_MAX: u32 = 10_000;

/// What names a delivery to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The consumer's epoch. Rises with every consumer that connects.
    pub epoch: u64,
    /// The delivery, unique in the epoch.
    pub number: u64,
}

/// An event for a consumer.
#[derive(Clone, Debug)]
pub struct PulledDelivery {
    /// What to acknowledge.
    pub lease: Lease,
    /// The event.
    pub delivery: Delivery,
}

/// What a consumer says about a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It was handled.
    Done,
    /// It failed.
    Failed {
        /// Why.
        error: String,
        /// How long to wait at least before it is tried again.
        retry_after: Option<Duration>,
    },
}

/// What a lease ends with.
enum LeaseEnd {
    Acknowledged(Acknowledgement),
    /// Nothing was said, and that is nobody's fault.
    Released,
}

/// An acknowledgement came too late, or never belonged to this consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease has ended: another may have the event")]
pub struct AckError;

struct Waiting {
    delivery: Delivery,
    given: oneshot::Sender<Lease>,
    answer: oneshot::Sender<LeaseEnd>,
}

struct ConsumerState {
    credits: u32,
    deliveries: mpsc::UnboundedSender<PulledDelivery>,
    leases: HashMap<u64, oneshot::Sender<LeaseEnd>>,
}

#[derive(Default)]
struct State {
    next_epoch: u64,
    next_number: u64,
    waiting: VecDeque<Waiting>,
    consumers: HashMap<u64, ConsumerState>,
    /// Consumers with credits, in turn.
    turns: VecDeque<u64>,
    /// Nobody can connect any more.
    is_closed: bool,
}

impl State {
    /// Gives out as much as there are credits for.
    fn pump(&mut self) {
        while let Some(epoch) = self.turns.front().copied() {
            let Some(consumer) = self.consumers.get_mut(&epoch).filter(|consumer| consumer.credits > 0) else {
                self.turns.pop_front();
                continue;
            };
            let Some(waiting) = self.waiting.pop_front() else { return };
            if waiting.answer.is_closed() {
                continue; // The engine does not want it any more.
            }
            let lease = Lease { epoch, number: self.next_number };
            self.next_number += 1;
            consumer.credits -= 1;
            let sent = consumer.deliveries.send(PulledDelivery { lease, delivery: waiting.delivery.clone() });
            if sent.is_err() {
                // It is about to leave.
                consumer.credits = 0;
                self.waiting.push_front(waiting);
                continue;
            }
            let _ = waiting.given.send(lease);
            consumer.leases.insert(lease.number, waiting.answer);
            self.turns.rotate_left(1);
        }
    }

    fn end_lease(&mut self, lease: Lease) -> Option<oneshot::Sender<LeaseEnd>> {
        self.consumers.get_mut(&lease.epoch)?.leases.remove(&lease.number)
    }

    /// A consumer goes: its leases end without being counted.
    fn release(&mut self, epoch: u64) {
        let Some(consumer) = self.consumers.remove(&epoch) else { return };
        for answer in consumer.leases.into_values() {
            let _ = answer.send(LeaseEnd::Released); // The engine may not want it any more.
        }
    }
}

/// Leases events to connected consumers, which acknowledge them.
pub struct PullHandler {
    state: Arc<Mutex<State>>,
    clock: Clock,
    timeout: Mutex<Duration>,
}

/// A connected consumer. Dropping it ends its leases.
pub struct Consumer {
    epoch: u64,
    state: Arc<Mutex<State>>,
}

impl PullHandler {
    /// Without consumers. Each delivery is to be acknowledged within `timeout`.
    pub fn new(clock: Clock, timeout: Duration) -> Self {
        Self { state: Arc::default(), clock, timeout: Mutex::new(timeout) }
    }

    /// Another time for deliveries from now on.
    pub fn set_timeout(&self, timeout: Duration) {
        *self.timeout.lock() = timeout;
    }

    /// How many consumers there are.
    pub fn consumers(&self) -> usize {
        self.state.lock().consumers.len()
    }

    /// Ends all streams, without counting what they had as attempts. Nobody can connect any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let epochs: Vec<u64> = state.consumers.keys().copied().collect();
        epochs.into_iter().for_each(|epoch| state.release(epoch));
    }

    /// A consumer connects, without credits. Its deliveries come through the receiver: as many as it has credits for. The
    /// receiver ends when the subscription is deleted or gets another handler.
    pub fn connect(&self) -> (Consumer, mpsc::UnboundedReceiver<PulledDelivery>) {
        let (deliveries, received) = mpsc::unbounded_channel();
        let mut state = self.state.lock();
        state.next_epoch += 1;
        let epoch = state.next_epoch;
        if !state.is_closed {
            state.consumers.insert(epoch, ConsumerState { credits: 0, deliveries, leases: HashMap::new() });
        }
        drop(state);
        (Consumer { epoch, state: Arc::clone(&self.state) }, received)
    }

    async fn deliver_one(&self, delivery: Delivery) -> Outcome {
        let (given, lease) = oneshot::channel();
        let (answer, acknowledged) = oneshot::channel();
        {
            let mut state = self.state.lock();
            state.waiting.push_back(Waiting { delivery, given, answer });
            state.pump();
        }
        // As long as nobody has it, no time goes by for it.
        let Ok(lease) = lease.await else { return Outcome::NotAttempted };
        let timeout = *self.timeout.lock();
        let acknowledged = tokio::time::timeout(timeout, acknowledged).await;
        let now = self.clock.now_ms();
        let failed = |error: &str| Outcome::Failed { error: error.to_owned(), retry_after: None, failed_at_ms: now };
        match acknowledged {
            Ok(Ok(LeaseEnd::Acknowledged(Acknowledgement::Done))) => Outcome::Done { processed_at_ms: now },
            Ok(Ok(LeaseEnd::Acknowledged(Acknowledgement::Failed { error, retry_after }))) => {
                Outcome::Failed { error, retry_after, failed_at_ms: now }
            }
            Ok(Ok(LeaseEnd::Released)) => Outcome::NotAttempted,
            Ok(Err(_)) => failed("the consumer was cut off"),
            Err(_) => {
                self.state.lock().end_lease(lease);
                failed("the consumer did not acknowledge in time")
            }
        }
    }
}

impl Consumer {
    /// Its epoch.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// It has room for so many more.
    pub fn add_credits(&self, credits: u32) {
        let mut state = self.state.lock();
        let Some(consumer) = state.consumers.get_mut(&self.epoch) else { return };
        let had_none = consumer.credits == 0;
        consumer.credits = consumer.credits.saturating_add(credits).min(CREDITS_MAX);
        if had_none && consumer.credits > 0 {
            state.turns.push_back(self.epoch);
        }
        state.pump();
    }

    /// Acknowledges a delivery.
    ///
    /// # Errors
    /// When its lease has ended, or is another consumer's.
    pub fn acknowledge(&self, lease: Lease, acknowledgement: Acknowledgement) -> Result<(), AckError> {
        if lease.epoch != self.epoch {
            return Err(AckError);
        }
        let answer = self.state.lock().end_lease(lease).ok_or(AckError)?;
        answer.send(LeaseEnd::Acknowledged(acknowledgement)).map_err(|_| AckError)
    }

    /// How many deliveries it has not acknowledged.
    pub fn leases(&self) -> usize {
        self.state.lock().consumers.get(&self.epoch).map_or(0, |consumer| consumer.leases.len())
    }

    /// Gets no more deliveries.
    pub fn stop(&self) {
        if let Some(consumer) = self.state.lock().consumers.get_mut(&self.epoch) {
            consumer.credits = 0;
        }
    }

    /// The service ends the stream: what it has goes to others, without counting as an attempt.
    pub fn release(&self) {
        self.state.lock().release(self.epoch);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // The leases' answers go with it, which the engine sees.
        self.state.lock().consumers.remove(&self.epoch);
    }
}

#[async_trait]
impl Handler for PullHandler {
    fn recall(&self) {
        self.state.lock().waiting.clear();
    }

    async fn deliver(&self, users: Vec<Vec<Delivery>>) -> Vec<Vec<Outcome>> {
        let mut answers = Vec::with_capacity(users.len());
        for user in users {
            let mut outcomes = Vec::with_capacity(user.len());
            let count = user.len();
            for delivery in user {
                let outcome = self.deliver_one(delivery).await;
                let is_done = matches!(outcome, Outcome::Done { .. });
                outcomes.push(outcome);
                if !is_done {
                    break;
                }
            }
            outcomes.resize(count, Outcome::NotAttempted);
            answers.push(outcomes);
        }
        answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Event, Gaps};

    fn delivery(id: &str) -> Delivery {
        let event = Arc::new(Event { id: id.to_owned(), ..Event::default() });
        Delivery {
            event,
            attempt: 1,
            is_last_attempt: false,
            is_replay: false,
            gaps: Arc::new(Gaps::default()),
            traceparent: String::new(),
        }
    }

    fn deliver(handler: &Arc<PullHandler>, id: &str) -> tokio::task::JoinHandle<Outcome> {
        let (handler, delivery) = (Arc::clone(handler), delivery(id));
        tokio::spawn(async move { handler.deliver_one(delivery).await })
    }

    fn handler() -> Arc<PullHandler> {
        Arc::new(PullHandler::new(Clock::from_fn(|| 7), Duration::from_secs(10)))
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_given_beyond_the_credits() {
        let handler = handler();
        let (consumer, mut received) = handler.connect();
        let (first, second) = (deliver(&handler, "a"), deliver(&handler, "b"));
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "no credits");
        consumer.add_credits(1);
        let given = received.recv().await.unwrap();
        tokio::task::yield_now().await;
        assert!(received.try_recv().is_err(), "no more credits");
        consumer.acknowledge(given.lease, Acknowledgement::Done).unwrap();
        assert_eq!(first.await.unwrap(), Outcome::Done { processed_at_ms: 7 });
        assert_eq!(consumer.acknowledge(given.lease, Acknowledgement::Done), Err(AckError), "once");
        assert!(!second.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn consumers_take_turns() {
        let handler = handler();
        let (one, mut first) = handler.connect();
        let (two, mut second) = handler.connect();
        one.add_credits(5);
        two.add_credits(5);
        let all: Vec<_> = ["a", "b", "c", "d"].map(|id| deliver(&handler, id)).into();
        for _ in 0..2 {
            let (a, b) = (first.recv().await.unwrap(), second.recv().await.unwrap());
            one.acknowledge(a.lease, Acknowledgement::Done).unwrap();
            assert_eq!(one.acknowledge(b.lease, Acknowledgement::Done), Err(AckError), "it is another's");
            two.acknowledge(b.lease, Acknowledgement::Done).unwrap();
        }
        for one in all {
            assert_eq!(one.await.unwrap(), Outcome::Done { processed_at_ms: 7 });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_cut_off_or_too_slow_is_fenced() {
        let handler = handler();
        let (consumer, mut received) = handler.connect();
        consumer.add_credits(2);
        let slow = deliver(&handler, "slow");
        let given = received.recv().await.unwrap();
        assert!(matches!(slow.await.unwrap(), Outcome::Failed { error, .. } if error.contains("in time")));
        assert_eq!(consumer.acknowledge(given.lease, Acknowledgement::Done), Err(AckError));
        let cut_off = deliver(&handler, "cut off");
        received.recv().await.unwrap();
        drop(consumer);
        assert!(matches!(cut_off.await.unwrap(), Outcome::Failed { error, .. } if error.contains("cut off")));
        assert_eq!(handler.consumers(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_service_itself_takes_back_is_no_attempt() {
        let handler = handler();
        let waiting = deliver(&handler, "nobody has it");
        tokio::task::yield_now().await;
        handler.recall();
        assert_eq!(waiting.await.unwrap(), Outcome::NotAttempted);
        let (consumer, mut received) = handler.connect();
        consumer.add_credits(1);
        let released = deliver(&handler, "released");
        received.recv().await.unwrap();
        assert_eq!(consumer.leases(), 1);
        consumer.release();
        assert_eq!(released.await.unwrap(), Outcome::NotAttempted);

        let (consumer, mut received) = handler.connect();
        consumer.add_credits(1);
        let given = deliver(&handler, "given");
        received.recv().await.unwrap();
        handler.close();
        assert_eq!(given.await.unwrap(), Outcome::NotAttempted);
        assert!(received.recv().await.is_none(), "the stream has ended");
        consumer.add_credits(1);
        let (late, mut received) = handler.connect();
        late.add_credits(1);
        assert!(received.recv().await.is_none(), "nobody can connect");
    }
}
