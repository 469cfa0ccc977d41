//! Bodies of gRPC requests: each message must arrive in time, and the bytes of incomplete messages are
//! counted.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use crate::transport::concurrency::UnfinishedBytes;
use crate::transport::error::status;

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// The time-outs for a request's body.
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyTimeout {
    /// The whole body must arrive within this time.
    Whole(Duration),
    /// Each message must be complete within this time after its start. The next one can start at
    /// any time.
    EachMessage(Duration),
    /// The next message, or the end, must arrive within this time.
    EachMessageAndPause(Duration),
}

/// Wraps the body of a gRPC request. Fails the request if a message does not arrive in time
/// ([`BodyTimeout`]), or if the unfinished requests of all callers exceed
/// `request_bytes_in_flight_max`.
pub(super) struct RequestBody {
    body: Body,
    timeout_rule: BodyTimeout,
    /// Since when the whole, or the message, is waited for.
    since: Instant,
    /// Made when something is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
    messages: Messages,
    /// None where calls have no record, in tests.
    unfinished: Option<UnfinishedBytes>,
}

impl RequestBody {
    pub(super) fn new(body: Body, timeout_rule: BodyTimeout, unfinished: Option<UnfinishedBytes>) -> Self {
        let messages = Messages::default();
        Self { body, timeout_rule, since: Instant::now(), timer: None, messages, unfinished }
    }

    /// Says when the wait is over.
    fn poll_timeout(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let wait = match self.timeout_rule {
            BodyTimeout::EachMessage(_) if self.messages.unfinished_bytes() == 0 => return Poll::Pending,
            BodyTimeout::Whole(wait) | BodyTimeout::EachMessage(wait) | BodyTimeout::EachMessageAndPause(wait) => wait,
        };
        let until = self.since + wait;
        self.timer.get_or_insert_with(|| Box::pin(sleep_until(until))).as_mut().poll(context)
    }

    fn note(&mut self, data: &[u8]) -> Result<(), Status> {
        let before = self.messages.unfinished_bytes();
        let has_ended_one = self.messages.note(data);
        if has_ended_one || before == 0 {
            // Another message is waited for now.
            if !matches!(self.timeout_rule, BodyTimeout::Whole(_)) {
                (self.since, self.timer) = (Instant::now(), None);
            }
        }
        let unfinished = self.messages.unfinished_bytes();
        match &mut self.unfinished {
            Some(counted) if before > 0 || unfinished > 0 => counted.set(unfinished).map_err(status::of),
            Some(_) | None => Ok(()),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(polled) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.poll_timeout(context));
            let error = status::deadline_exceeded("the request did not arrive in time");
            return Poll::Ready(Some(Err(error)));
        };
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(error) = self.note(data)
        {
            return Poll::Ready(Some(Err(error)));
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where messages begin and end.
#[derive(Default)]
struct Messages {
    /// The prefix of the next message, as far as it is there.
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// What is still to come of a message whose prefix is there.
    remaining: u64,
    /// What is there of it.
    arrived: u64,
}

impl Messages {
    /// Bytes of a message that is not there as a whole.
    const fn unfinished_bytes(&self) -> u64 {
        self.arrived + self.prefix_bytes as u64
    }

    /// More bytes have come. Returns whether a message ended among them.
    fn note(&mut self, mut data: &[u8]) -> bool {
        let mut has_ended_one = false;
        while !data.is_empty() {
            if self.prefix_bytes < PREFIX_BYTES {
                let taken = data.len().min(PREFIX_BYTES - self.prefix_bytes);
                self.prefix[self.prefix_bytes..self.prefix_bytes + taken].copy_from_slice(&data[..taken]);
                self.prefix_bytes += taken;
                data = &data[taken..];
                if self.prefix_bytes < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.remaining = u32::from_be_bytes(length).into();
            }
            let taken = self.remaining.min(data.len() as u64);
            self.remaining -= taken;
            self.arrived += taken;
            data = data.split_at(usize::try_from(taken).unwrap_or(data.len())).1;
            if self.remaining == 0 {
                has_ended_one = true;
                (self.prefix_bytes, self.arrived) = (0, 0);
            }
        }
        has_ended_one
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    proptest! {
        #[test]
        fn messages_are_told_apart_however_they_are_cut(
            lengths in prop::collection::vec(0..40_usize, 0..20),
            pieces in prop::collection::vec(1..30_usize, 1..40),
        ) {
            let whole: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut messages = Messages::default();
            let (mut rest, mut done) = (&whole[..], 0);
            for piece in pieces.iter().cycle().take(2_000) {
                let (data, others) = rest.split_at(rest.len().min(*piece));
                messages.note(data);
                (rest, done) = (others, done + data.len());
                // The start of the message that the next byte belongs to.
                let mut start = 0;
                for length in &lengths {
                    if start + PREFIX_BYTES + length > done {
                        break;
                    }
                    start += PREFIX_BYTES + length;
                }
                prop_assert_eq!(messages.unfinished_bytes(), (done - start) as u64);
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(messages.unfinished_bytes(), 0);
        }
    }

    /// A body of these pieces, each after a pause in seconds, that then never
    /// ends.
    fn body(pieces: Vec<(u64, Vec<u8>)>, timeout_rule: BodyTimeout) -> RequestBody {
        let pieces = stream::iter(pieces).then(|(pause, data)| async move {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok::<_, Status>(Frame::data(Bytes::from(data)))
        });
        RequestBody::new(Body::new(StreamBody::new(Box::pin(pieces.chain(stream::pending())))), timeout_rule, None)
    }

    /// After how many seconds the body ends with a time-out.
    async fn ends_after(mut body: RequestBody) -> u64 {
        let begun = Instant::now();
        loop {
            if let Err(status) = body.frame().await.unwrap() {
                assert_eq!(status.code(), Code::DeadlineExceeded);
                return begun.elapsed().as_secs();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_never_end_are_given_up() {
        let ten = Duration::from_secs(10);
        let halves = || vec![(1, message(8)[..7].to_vec()), (2, message(8)[7..].to_vec())];
        assert_eq!(ends_after(body(vec![], BodyTimeout::Whole(ten))).await, 10);
        assert_eq!(ends_after(body(halves(), BodyTimeout::Whole(ten))).await, 10);
        assert_eq!(ends_after(body(halves(), BodyTimeout::EachMessageAndPause(ten))).await, 13);
        // A byte every now and then does not help.
        let drops = (0..100).map(|_| (3, vec![0])).collect();
        assert_eq!(ends_after(body(drops, BodyTimeout::EachMessageAndPause(ten))).await, 13);
        let mut with_a_pause = halves();
        with_a_pause.push((1_000, message(8)[..6].to_vec()));
        assert_eq!(ends_after(body(with_a_pause, BodyTimeout::EachMessage(ten))).await, 1_013);
    }
}
