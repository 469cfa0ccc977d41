//! Handles one request of an analyst.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue};
use axum::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

use super::credentials::{AnalystLogins, Principal};
use super::error::GatewayError;
use super::forward::{Answer, Statement, StatementRunner};
use super::origin::OwnHosts;
use super::queue::Queue;
use super::settings::SettingLimits;
use super::{request, response, statement};

/// The body of an answer.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A page to try statements on, and its script.
const PLAY_HTML: &str = include_str!("play/play.html");
const PLAY_JS: &str = include_str!("play/play.js");
/// The page loads its own script, and calls its own port.
const PLAY_POLICY: &str = "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; \
                           frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// What requests are answered with.
pub(super) struct Service {
    pub hosts: OwnHosts,
    pub logins: AnalystLogins,
    pub queue: Queue,
    pub bounds: SettingLimits,
    pub forwarder: StatementRunner,
}

impl Service {
    /// Answers a request, whatever it is.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let query_id = uuid::Uuid::now_v7().to_string();
        let answered = match self.hosts.check(request.headers()) {
            Ok(()) => self.route(request, peer, &query_id).await,
            Err(error) => Err(error),
        };
        answered.unwrap_or_else(|error| failed(&error, &query_id))
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        query_id: &str,
    ) -> Result<Response<Body>, GatewayError> {
        let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
        match request.uri().path() {
            "/ping" | "/replicas_status" if is_reading => Ok(page("text/plain; charset=utf-8", "Ok.\n")),
            "/play" if is_reading => Ok(page("text/html; charset=utf-8", PLAY_HTML)),
            "/play.js" if is_reading => Ok(page("text/javascript; charset=utf-8", PLAY_JS)),
            "/" if is_reading && request.uri().query().is_none() => Ok(page("text/plain; charset=utf-8", "Ok.\n")),
            "/" if is_reading || request.method() == Method::POST => self.query(request, peer, query_id).await,
            "/" => {
                let mut response = page("text/plain; charset=utf-8", "GET and POST are answered here.\n");
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
                Ok(response)
            }
            _ => {
                let message = "there is nothing at this path: statements go to /";
                Err(GatewayError::new(StatusCode::NOT_FOUND, 36, "BAD_ARGUMENTS", message))
            }
        }
    }

    /// Runs the statement of a request, whose origin has been checked.
    pub(super) async fn query<B>(
        &self,
        request: Request<B>,
        peer: IpAddr,
        query_id: &str,
    ) -> Result<Response<Body>, GatewayError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let params = request::params(parts.uri.query());
        let principal = self.logins.principal(&parts.headers, &params, peer)?;
        check_database(&principal, &parts.headers, &params)?;
        let sql = request::statement(&parts, &params, body).await?;
        let checked = check(Arc::clone(&principal), sql).await?;
        let params = request::passed_on(&parts.headers, &params, &checked, &self.bounds)?;
        let turn = self.queue.turn(&principal.engine_user).await?;
        let statement = Statement {
            principal: &principal,
            sql: checked.sql,
            params,
            accept_encoding: parts.headers.get(ACCEPT_ENCODING).cloned(),
            query_id: query_id.to_owned(),
        };
        let Answer { headers, body } = self.forwarder.run(statement, turn).await?;
        let mut response = Response::new(body.boxed_unsync());
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Reading a statement takes the processor, up to milliseconds.
async fn check(principal: Arc<Principal>, sql: String) -> Result<statement::CheckedStatement, GatewayError> {
    let checked = tokio::task::spawn_blocking(move || statement::check(&sql, &principal.scope)).await;
    let failed = |_| GatewayError::request("the statement could not be read");
    Ok(checked.map_err(failed)??)
}

/// A request may name the analyst's own database, or one of those that clients
/// name by default.
fn check_database(principal: &Principal, headers: &HeaderMap, params: &[(String, String)]) -> Result<(), GatewayError> {
    let Some(database) = request::database(headers, params) else { return Ok(()) };
    if principal.scope.is_own(database) || matches!(database, "default" | "system" | "__default__") {
        return Ok(());
    }
    let message = format!("there is no database {database:?} here; yours is {}", principal.scope.shown_database);
    Err(GatewayError::new(StatusCode::NOT_FOUND, 81, "UNKNOWN_DATABASE", message))
}

fn page(kind: &'static str, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(PLAY_POLICY));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    // By which clients know what they have reached.
    headers.insert("x-clickhouse-server-display-name", HeaderValue::from_static("tallyhouse"));
    response
}

fn failed(error: &GatewayError, query_id: &str) -> Response<Body> {
    let mut response = Response::new(full(error.to_string()));
    *response.status_mut() = error.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=UTF-8"));
    headers.insert("x-clickhouse-exception-code", HeaderValue::from(error.code));
    response::add_common(headers, query_id);
    response
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}
