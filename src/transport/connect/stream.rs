//! Streams: messages in envelopes, and how the stream ended in the last one of an answer.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::BodyExt as _;
use prost_reflect::MessageDescriptor;
use prost_reflect::prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::envelope::{Unwrapper, wrap, wrap_end};
use super::{Codec, Translator, error, json as message_json, make_grpc};
use crate::transport::rest::body;

/// Longest message of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Serves one call.
pub(super) async fn serve<S>(
    translator: &Translator,
    inner: S,
    request: Request,
    codec: Codec,
) -> Result<Response, Infallible>
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    let Some(method) = translator.method(request.uri().path()) else {
        body::drain(request).await;
        return Ok(ended(codec, &Status::unimplemented("there is no such method")));
    };
    let message_bytes_max = translator.context.app.config.message_bytes_max;
    let (mut parts, body) = request.into_parts();
    make_grpc(&mut parts.headers, &mut parts.version);
    let messages = Messages { body, unwrapper: Unwrapper::new(message_bytes_max), descriptor: method.input(), codec };
    let answer = inner.oneshot(Request::from_parts(parts, Body::from_stream(messages.into_grpc()))).await?;
    Ok(write(method.output(), answer, codec))
}

/// The messages of a body.
struct Messages {
    body: Body,
    unwrapper: Unwrapper,
    descriptor: MessageDescriptor,
    codec: Codec,
}

impl Messages {
    /// A request's messages as gRPC has them. One that cannot be read ends them.
    fn into_grpc(self) -> impl futures_util::Stream<Item = Result<Bytes, Status>> {
        unfold(Some(self), |messages| async move {
            let mut messages = messages?;
            match messages.next().await {
                Ok(Some(message)) => match messages.to_proto(message) {
                    Ok(message) => Some((Ok(wrap(&message)), Some(messages))),
                    Err(status) => Some((Err(status), None)),
                },
                Ok(None) if messages.unwrapper.is_torn() => {
                    Some((Err(Status::invalid_argument("the last message broke off")), None))
                }
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    /// The next whole message; none at the end of the body.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.unwrapper.next()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.unwrapper.push(&data);
                    }
                }
                Some(Err(_)) => return Err(Status::cancelled("the request broke off")),
                None => return Ok(None),
            }
        }
    }

    fn to_proto(&self, message: Bytes) -> Result<Bytes, Status> {
        match self.codec {
            Codec::Proto => Ok(message),
            Codec::Json => {
                message_json::read(self.descriptor.clone(), &message).map(|message| message.encode_to_vec().into())
            }
        }
    }
}

/// gRPC's answer in Connect's form.
fn write(descriptor: MessageDescriptor, answer: Response, codec: Codec) -> Response {
    let (mut parts, body) = answer.into_parts();
    let unwrapper = Unwrapper::new(ANSWER_BYTES_MAX);
    // Where there is no body, the headers say how the call ended.
    let status = parts.headers.contains_key("grpc-status").then(|| error::status_of(&parts.headers));
    let answers = Answers { body, unwrapper, descriptor, codec, status };
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding"] {
        parts.headers.remove(name);
    }
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONTENT_TYPE, content_type(codec));
    parts.status = StatusCode::OK;
    Response::from_parts(parts, Body::from_stream(answers.into_connect()))
}

/// An answer's messages, as they come.
struct Answers {
    body: Body,
    unwrapper: Unwrapper,
    descriptor: MessageDescriptor,
    codec: Codec,
    /// How the call ended, once that is known.
    status: Option<Status>,
}

impl Answers {
    /// The messages in Connect's envelopes, with the end in the last.
    fn into_connect(self) -> impl futures_util::Stream<Item = Result<Bytes, Infallible>> {
        unfold(Some(self), |answers| async move {
            let mut answers = answers?;
            match answers.next().await {
                Ok(Some(message)) => match answers.to_codec(message) {
                    Ok(message) => Some((Ok(wrap(&message)), Some(answers))),
                    Err(status) => Some((Ok(end(&status)), None)),
                },
                Ok(None) => {
                    let status = answers.status.take();
                    Some((Ok(end(&status.unwrap_or_else(|| Status::unknown("the answer broke off")))), None))
                }
                Err(status) => Some((Ok(end(&status)), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.unwrapper.next()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.unwrapper.push(&data),
                    Err(frame) => self.note(frame.trailers_ref()),
                },
                Some(Err(_)) => return Err(Status::unavailable("the answer broke off")),
                None => return Ok(None),
            }
        }
    }

    fn note(&mut self, trailers: Option<&HeaderMap>) {
        if let Some(trailers) = trailers {
            self.status = Some(error::status_of(trailers));
        }
    }

    fn to_codec(&self, message: Bytes) -> Result<Bytes, Status> {
        match self.codec {
            Codec::Proto => Ok(message),
            Codec::Json => message_json::write(self.descriptor.clone(), &message).map(Bytes::from),
        }
    }
}

/// The last envelope: empty when the stream ended well.
fn end(status: &Status) -> Bytes {
    let end = if status.code() == Code::Ok { json!({}) } else { json!({ "error": error::to_json(status) }) };
    wrap_end(end.to_string().as_bytes())
}

/// An answer that only ends.
fn ended(codec: Codec, status: &Status) -> Response {
    let mut response = Response::new(Body::from(end(status)));
    response.headers_mut().insert(CONTENT_TYPE, content_type(codec));
    response
}

const fn content_type(codec: Codec) -> HeaderValue {
    match codec {
        Codec::Json => HeaderValue::from_static("application/connect+json"),
        Codec::Proto => HeaderValue::from_static("application/connect+proto"),
    }
}
