//! Statements of the service's own pages, which come through its main port.
//!
//! There they are requests like others: a refusal is one of the service's errors,
//! not one in the words of ClickHouse.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::time::Duration;

use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body;

use super::Gateway;
use super::error::{AUTHENTICATION_FAILED, GatewayError, TOO_MANY_QUERIES};
use super::origin;
use crate::domain::Error;

/// How long is waited before a statement is sent again that there was no room for.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Gateway {
    /// Runs the statement of a request that came through another port of the
    /// service, which has checked the host that it names. Pages of other origins
    /// are refused, also where that port lets them in.
    ///
    /// # Errors
    /// `Forbidden` for such a page, `Unauthenticated` for a wrong user or password,
    /// `Exhausted` when too many statements run, `Unavailable` when ClickHouse does
    /// not answer, else `Invalid`, naming `statement`.
    pub async fn run_for_own_page<B>(
        &self,
        request: Request<B>,
        peer: IpAddr,
    ) -> Result<Response<impl Body<Data = Bytes, Error = std::io::Error> + Send + use<B>>, Error>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let from_uri = request.uri().authority().map(Authority::as_str);
        let from_header = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
        let host = from_uri.or_else(from_header).unwrap_or_default();
        if origin::check_page(request.headers(), host).is_err() {
            return Err(Error::forbidden("statements are not taken from pages of other origins"));
        }
        let query_id = uuid::Uuid::now_v7().to_string();
        self.service.query(request, peer, &query_id).await.map_err(into_domain)
    }
}

/// The same error in the service's own words.
fn into_domain(error: GatewayError) -> Error {
    match (error.code, error.status) {
        (AUTHENTICATION_FAILED, _) => Error::unauthenticated(error.message),
        (TOO_MANY_QUERIES, _) => Error::exhausted(error.message, RETRY_AFTER),
        (_, StatusCode::SERVICE_UNAVAILABLE) => Error::unavailable(error.message, RETRY_AFTER),
        _ => Error::invalid_field("statement", format!("{} ({})", error.message, error.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ErrorCode;

    #[test]
    fn errors_keep_their_meaning() {
        let check = |error: GatewayError, expected: ErrorCode| {
            let text = error.message.clone();
            let error = into_domain(error);
            assert_eq!(error.code, expected, "{text}");
            let fields = error.fields.first().map_or("", |fault| &fault.message);
            assert!(error.message.contains(&text) || fields.contains(&text), "{text}");
        };
        check(GatewayError::authentication(), ErrorCode::Unauthenticated);
        check(GatewayError::busy("wait"), ErrorCode::Exhausted);
        check(GatewayError::away(), ErrorCode::Unavailable);
        check(GatewayError::too_long(), ErrorCode::Invalid);
        check(GatewayError::setting("not this one"), ErrorCode::Invalid);
    }
}
