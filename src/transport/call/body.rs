//! Bodies of answers, watched to their end: only then a call has ended, and a
//! gRPC call has its status.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;

use super::Ending;

/// See the module.
pub(in crate::transport) struct WatchedBody {
    body: Body,
    /// Told, when it is dropped, that the call has ended.
    ending: Ending,
}

impl WatchedBody {
    pub(super) const fn new(body: Body, ending: Ending) -> Self {
        Self { body, ending }
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let Self { body, ending } = &mut *self;
        let polled = ending.within(|| Pin::new(body).poll_frame(context));
        match &polled {
            Poll::Ready(None) => ending.is_whole = true,
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    ending.call().note_grpc_status(trailers);
                    ending.is_whole = true;
                }
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        // A body that is known to be whole is not asked for its end.
        self.ending.is_whole |= self.body.is_end_stream();
    }
}
