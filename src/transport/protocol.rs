//! Detects the protocol of a request, and writes errors in it.

use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::error::failure::Failure;
use super::error::status;
use crate::domain::Error;

/// The protocols of the one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// grpc-web, with its content type.
    GrpcWeb(HeaderValue),
    /// Anything else.
    Rest,
}

impl Protocol {
    /// Tells by the content type.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(content_type) = headers.get(CONTENT_TYPE) else { return Self::Rest };
        match content_type.as_bytes().strip_prefix(b"application/grpc") {
            Some([] | [b'+' | b';', ..]) => Self::Grpc,
            Some(rest) if rest.starts_with(b"-web") => Self::GrpcWeb(content_type.clone()),
            Some(_) | None => Self::Rest,
        }
    }

    /// The response that says this error.
    pub(super) fn refusal(&self, error: Error) -> Response {
        match self {
            Self::Rest => Failure::from(error).into_response(),
            Self::Grpc | Self::GrpcWeb(_) => self.status_response(status::of(error)),
        }
    }

    /// A gRPC response without a message.
    pub(super) fn status_response(&self, status: tonic::Status) -> Response {
        let mut response: Response = status.into_http();
        if let Self::GrpcWeb(content_type) = self {
            response.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_tells_the_protocol() {
        let check = |content_type: &'static str, expected: Protocol| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
            assert_eq!(Protocol::of(&headers), expected, "{content_type}");
        };
        let web = |text| Protocol::GrpcWeb(HeaderValue::from_static(text));
        check("application/grpc", Protocol::Grpc);
        check("application/grpc+proto", Protocol::Grpc);
        check("application/grpc;charset=utf-8", Protocol::Grpc);
        check("application/grpc-web+proto", web("application/grpc-web+proto"));
        check("application/grpc-web-text", web("application/grpc-web-text"));
        check("application/grpcish", Protocol::Rest);
        check("application/json", Protocol::Rest);
        assert_eq!(Protocol::of(&HeaderMap::new()), Protocol::Rest);
    }
}
