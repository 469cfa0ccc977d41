//! The Connect protocol: every RPC by plain HTTP, as JSON or as Protobuf.
//!
//! A request of Connect's is turned into one of gRPC's, and the answer back, so that methods, access, limits and
//! deadlines are those of gRPC. Unary calls are a POST of the message (`application/json` or `application/proto`),
//! streams a sequence of envelopes (`application/connect+json`, `application/connect+proto`). GET requests and
//! compressed envelopes are not served.
//!
//! Source: "The Connect Protocol Reference" (connectrpc.com).

mod envelope;
mod error;
mod json;
mod stream;
mod unary;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use axum::response::Response;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use tower::{Layer, Service};

use super::context::TransportContext;
use super::proto;

const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Most digits of `grpc-timeout`.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// How a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Json,
    Proto,
}

/// What a request of Connect's is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unary(Codec),
    Stream(Codec),
}

impl Kind {
    /// Tells by method and content type; none for requests that are not Connect's.
    fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        let content_type = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let kind = match essence.as_str() {
            "application/json" => Self::Unary(Codec::Json),
            "application/proto" => Self::Unary(Codec::Proto),
            "application/connect+json" => Self::Stream(Codec::Json),
            "application/connect+proto" => Self::Stream(Codec::Proto),
            _ => return None,
        };
        (*method == Method::POST).then_some(kind)
    }
}

/// Turns requests of Connect's into gRPC's.
#[derive(Clone)]
pub(super) struct ConnectLayer(Arc<Translator>);

/// What all requests share.
struct Translator {
    context: Arc<TransportContext>,
    pool: DescriptorPool,
}

impl ConnectLayer {
    /// For the methods of the protocol.
    ///
    /// # Errors
    /// When the protocol's own description is broken.
    pub(super) fn new(context: &Arc<TransportContext>) -> Result<Self, prost_reflect::DescriptorError> {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS)?;
        Ok(Self(Arc::new(Translator { context: Arc::clone(context), pool })))
    }
}

impl Translator {
    /// The method of a path; none where there is no such method of ours.
    fn method(&self, path: &str) -> Option<MethodDescriptor> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        self.pool.get_service_by_name(service)?.methods().find(|known| known.name() == method)
    }
}

impl<S> Layer<S> for ConnectLayer {
    type Service = ConnectService<S>;

    fn layer(&self, inner: S) -> ConnectService<S> {
        ConnectService { inner, translator: Arc::clone(&self.0) }
    }
}

/// Serves Connect by a service of gRPC's.
#[derive(Clone)]
pub(super) struct ConnectService<S> {
    inner: S,
    translator: Arc<Translator>,
}

impl<S> Service<Request> for ConnectService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Some(kind) = Kind::of(request.method(), request.headers()) else { return self.inner.call(request).boxed() };
        let unready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, unready);
        let translator = Arc::clone(&self.translator);
        async move {
            match kind {
                Kind::Unary(codec) => unary::serve(&translator, inner, request, codec).await,
                Kind::Stream(codec) => stream::serve(&translator, inner, request, codec).await,
            }
        }
        .boxed()
    }
}

/// Turns the head of a request into that of one of gRPC's.
fn make_grpc(headers: &mut HeaderMap, version: &mut Version) {
    for name in [CONTENT_LENGTH, CONTENT_ENCODING] {
        headers.remove(name);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc+proto"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = headers.remove(CONNECT_TIMEOUT).as_ref().and_then(grpc_timeout) {
        headers.insert(GRPC_TIMEOUT, timeout);
    }
    *version = Version::HTTP_2;
}

/// The same time as gRPC has it: milliseconds, or seconds where these are too many digits.
fn grpc_timeout(connect: &HeaderValue) -> Option<HeaderValue> {
    let millis: u64 = connect.to_str().ok()?.parse().ok()?;
    let text = match millis.to_string() {
        digits if digits.len() <= TIMEOUT_DIGITS_MAX => format!("{digits}m"),
        _ => format!("{}S", (millis / 1_000).min(99_999_999)),
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_a_request_of_connect() {
        let check = |content_type: &'static str, expected: Option<Kind>| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(Kind::of(&Method::POST, &headers), expected, "{content_type}");
            assert_eq!(Kind::of(&Method::GET, &headers), None);
        };
        check("application/json; charset=utf-8", Some(Kind::Unary(Codec::Json)));
        check("application/proto", Some(Kind::Unary(Codec::Proto)));
        check("application/connect+json", Some(Kind::Stream(Codec::Json)));
        check("application/connect+proto", Some(Kind::Stream(Codec::Proto)));
        check("application/grpc", None);
        check("application/grpc-web+proto", None);
        check("text/plain", None);
    }

    #[test]
    fn timeouts_have_at_most_eight_digits() {
        let check = |connect: &'static str, expected: Option<&str>| {
            let grpc = grpc_timeout(&HeaderValue::from_static(connect));
            assert_eq!(grpc.as_ref().and_then(|value| value.to_str().ok()), expected, "{connect}");
        };
        check("1500", Some("1500m"));
        check("99999999", Some("99999999m"));
        check("100000000", Some("100000S"));
        check("-1", None);
        check("soon", None);
    }
}
