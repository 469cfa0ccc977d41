//! Unary calls: one message in a request, one in its answer.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use prost_reflect::prost::Message as _;
use prost_reflect::{MessageDescriptor, MethodDescriptor};
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};

use super::envelope::{Unwrapper, wrap};
use super::{Codec, Translator, error, json, make_grpc};
use crate::transport::call;
use crate::transport::concurrency::Class;
use crate::transport::error::failure::Failure;
use crate::transport::rest::body;

/// Longest answer that is written anew, in bytes. Answers of unary calls are lists of bounded length.
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
    let method = match translator.method(request.uri().path()) {
        Some(method) if !method.is_client_streaming() && !method.is_server_streaming() => method,
        Some(_) => return refuse(request, "this method is a stream: content type application/connect+json").await,
        None => return refuse(request, "there is no such method").await,
    };
    if let Some(Err(error)) = call::of(&request).map(|call| call.enter(Class::Open, None)) {
        return Ok(Failure::from(error).into_response());
    }
    let grpc = match read(translator, &method, request, codec).await {
        Ok(grpc) => grpc,
        Err(response) => return Ok(*response),
    };
    let answer = inner.oneshot(grpc).await?;
    Ok(write(method.output(), answer, codec).await.unwrap_or_else(|status| error::response(&status)))
}

async fn refuse(request: Request, message: &str) -> Result<Response, Infallible> {
    body::drain(request).await;
    Ok(error::response(&Status::unimplemented(message)))
}

/// The same request in gRPC's form.
async fn read(
    translator: &Translator,
    method: &MethodDescriptor,
    request: Request,
    codec: Codec,
) -> Result<Request, Box<Response>> {
    let (mut parts, body) = request.into_parts();
    // What belongs to the call is in the extensions, which a request without its body needs as well.
    let (mut head, ()) = Request::new(()).into_parts();
    (head.headers, head.extensions) = (parts.headers.clone(), parts.extensions.clone());
    let whole = body::read_any(Request::from_parts(head, body), &translator.context.app.config).await;
    let bytes = whole.map_err(|failure| Box::new(failure.into_response()))?;
    let message = match codec {
        Codec::Proto => bytes,
        Codec::Json => match json::read(method.input(), &bytes) {
            Ok(message) => message.encode_to_vec().into(),
            Err(status) => return Err(Box::new(error::response(&status))),
        },
    };
    make_grpc(&mut parts.headers, &mut parts.version);
    Ok(Request::from_parts(parts, Body::from(wrap(&message))))
}

/// gRPC's answer in Connect's form.
async fn write(descriptor: MessageDescriptor, answer: Response, codec: Codec) -> Result<Response, Status> {
    let (mut parts, body) = answer.into_parts();
    let collected = body.collect().await.map_err(|_| Status::internal("the answer broke off"))?;
    let trailers = collected.trailers().cloned();
    let status = error::status_of(trailers.as_ref().unwrap_or(&parts.headers));
    if status.code() != Code::Ok {
        return Err(status);
    }
    let mut unwrapper = Unwrapper::new(ANSWER_BYTES_MAX);
    unwrapper.push(&collected.to_bytes());
    let message = unwrapper.next()?.unwrap_or_default();
    let (message, content_type) = match codec {
        Codec::Proto => (message, "application/proto"),
        Codec::Json => (Bytes::from(json::write(descriptor, &message)?), "application/json"),
    };
    for name in ["grpc-status", "grpc-message", "grpc-encoding", "grpc-accept-encoding"] {
        parts.headers.remove(name);
    }
    for name in [CONTENT_LENGTH, TRAILER] {
        parts.headers.remove(name);
    }
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(Response::from_parts(parts, Body::from(message)))
}
