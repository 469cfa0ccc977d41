//! Bodies of answers, watched until their end: a call ends with its body, and only then a gRPC call has
//! its status. Bytes that are not written yet are counted, see [`super::unwritten`].

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;

use super::Ending;
use super::unwritten::UnwrittenPieces;

/// Wraps the body of an answer and reports its end, so that a call's duration, log line and gRPC
/// status cover the whole answer. Counts the bytes that are not written to the socket yet.
pub(in crate::transport) struct WatchedBody {
    body: Body,
    /// Told, when it is dropped, that the call has ended.
    ending: Ending,
    /// Whether all callers have the same bytes.
    is_shared: bool,
    /// What is left of a frame that is handed over in pieces.
    rest: Option<UnwrittenPieces>,
}

impl WatchedBody {
    pub(super) const fn new(body: Body, ending: Ending, is_shared: bool) -> Self {
        Self { body, ending, is_shared, rest: None }
    }

    /// Waits until a stream may have its next answer: answers that are made
    /// while nobody reads them would fill the memory.
    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let call = self.ending.call();
        let connection = &call.connection;
        let has_room = || connection.all().has_room_for_answers(connection);
        if !call.is_stream() || has_room() {
            return Poll::Ready(());
        }
        connection.all().wake_when_room(context.waker());
        if has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The next piece of what is handed over.
    fn next_piece(&mut self) -> Option<Bytes> {
        let (piece, is_last) = self.rest.as_mut()?.next();
        if is_last {
            self.rest = None;
        }
        Some(piece)
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        ready!(self.poll_room(context));
        let Self { body, ending, is_shared, rest } = &mut *self;
        let polled = ready!(ending.within(|| Pin::new(body).poll_frame(context)));
        let frame = match polled {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => {
                ending.is_whole = true;
                return Poll::Ready(None);
            }
        };
        match frame.into_data() {
            Ok(data) if data.is_empty() => Poll::Ready(Some(Ok(Frame::data(data)))),
            Ok(data) => {
                *rest = Some(UnwrittenPieces::new(ending.call(), data, *is_shared));
                Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
            }
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref() {
                    ending.call().note_grpc_status(trailers);
                    ending.is_whole = true;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = self.rest.as_ref().map_or(0, |rest| rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        // A body that is known to be whole is not asked for its end.
        self.ending.is_whole |= self.is_end_stream();
    }
}
