//! Deadlines of calls: the caller's `grpc-timeout`, and the service's own limits.
//!
//! A call whose deadline expires ends with `DEADLINE_EXCEEDED`, whether or not its headers have been sent;
//! a stream ends with trailers. tonic's own layer answers `CANCELLED`, ignores the time-out once headers
//! have been sent, and is outside of the layers that add CORS headers and request ids.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;
use tonic::body::Body;

use crate::transport::error::status;

/// The longest time-out that is told apart from none.
const TIMEOUT_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The caller's time-out, if there is one that can be read: at most eight
/// digits and a unit (see the protocol of gRPC over HTTP/2).
pub(super) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    (timeout < TIMEOUT_MAX).then_some(timeout)
}

/// The status of a call whose deadline has expired.
pub(super) fn exceeded() -> Status {
    status::deadline_exceeded("the call's deadline has run out")
}

/// A body that ends with [`exceeded`] at the deadline.
pub(super) struct DeadlineBody {
    body: Body,
    deadline: Instant,
    /// Made when the body is first waited for.
    timer: Option<Pin<Box<Sleep>>>,
}

impl DeadlineBody {
    pub(super) const fn new(body: Body, deadline: Instant) -> Self {
        Self { body, deadline, timer: None }
    }
}

impl HttpBody for DeadlineBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, deadline, timer } = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(*deadline)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Whatever made the answers is not needed any more.
        *body = Body::empty();
        let mut trailers = HeaderMap::new();
        match exceeded().add_header(&mut trailers) {
            Ok(()) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Err(status) => Poll::Ready(Some(Err(status))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    #[test]
    fn time_outs_are_read_as_the_protocol_has_them() {
        let check = |text: &'static str, expected: Option<Duration>| {
            let headers = HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), HeaderValue::from_static(text))]);
            assert_eq!(timeout(&headers), expected, "{text}");
        };
        check("1H", Some(Duration::from_secs(3_600)));
        check("2M", Some(Duration::from_secs(120)));
        check("99999999S", Some(Duration::from_secs(99_999_999)));
        check("3m", Some(Duration::from_millis(3)));
        check("0u", Some(Duration::ZERO));
        check("5n", Some(Duration::from_nanos(5)));
        for text in ["", "S", "5", "5s", "123456789S", "-1S", "99999999H", "1 S"] {
            check(text, None);
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_goes_on_ends_at_its_deadline() {
        let first = stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"a")))]);
        let endless = futures_util::StreamExt::chain(first, stream::pending());
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut body = DeadlineBody::new(Body::new(StreamBody::new(endless)), deadline);
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::DeadlineExceeded);
        assert_eq!(Instant::now(), deadline);
        assert!(body.frame().await.is_none());
    }
}
