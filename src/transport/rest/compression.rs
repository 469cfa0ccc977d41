//! Compresses large answers for callers that accept gzip.
//!
//! An answer is compressed in pieces, as its peer reads it. Until then the whole answer and the memory of
//! the compressor are counted among the bytes that wait to be written.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::ACCEPT_ENCODING;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};

use crate::transport::call::{self, HeldBytes, SharedBody};

/// Smallest answer that is compressed, in bytes.
const COMPRESSED_BYTES_MIN: u64 = 4 << 10;
/// What compressing an answer takes while it lasts, in bytes.
const COMPRESSOR_BYTES: u64 = 320 << 10;

/// Compresses large answers of these routes. (Fast: the service shares its
/// processors with the database.)
pub(super) fn compressing(router: Router) -> Router {
    // By default, streams of events and pictures are left as they are.
    let is_worth_it = DefaultPredicate::new().and(SizeAbove::new(COMPRESSED_BYTES_MIN));
    let compression = CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(is_worth_it);
    router.layer(from_fn(hold)).layer(compression)
}

/// Counts what waits to be compressed.
async fn hold(request: Request, next: Next) -> Response {
    let call = call::of(&request).filter(|_| request.headers().contains_key(ACCEPT_ENCODING)).cloned();
    let response = next.run(request).await;
    let Some(call) = call else { return response };
    let bytes = response.body().size_hint().lower();
    if bytes < COMPRESSED_BYTES_MIN {
        return response;
    }
    let own_bytes = if response.extensions().get::<SharedBody>().is_some() { 0 } else { bytes };
    let held = call.hold(own_bytes + COMPRESSOR_BYTES);
    response.map(|body| Body::new(HeldBody { body, _held: held }))
}

/// A body whose bytes are counted until it is dropped.
struct HeldBody {
    body: Body,
    _held: HeldBytes,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
