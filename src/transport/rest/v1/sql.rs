//! Analysts' SQL for pages of the service itself: the SQL gateway under the
//! same origin, so that a browser reaches it without its port being opened to
//! pages of other origins.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use utoipa::IntoResponses;

use crate::domain::Error;
use crate::transport::context::TransportContext;
use crate::transport::error::failure::{ErrorBody, Failure};

/// What can go wrong with a statement, for its description.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes")]
pub(in crate::transport::rest) enum StatementFailure {
    /// User or password is wrong: `UNAUTHENTICATED`.
    #[response(status = 401)]
    Unauthenticated(ErrorBody),
    /// The service has no SQL gateway: `NOT_FOUND`.
    #[response(status = 404)]
    NoGateway(ErrorBody),
    /// The statement cannot be run: `VALIDATION_ERROR`, with `statement` as the field.
    #[response(status = 422)]
    Invalid(ErrorBody),
    /// Too many statements run (`OVERLOADED`), or ClickHouse cannot be reached (`UNAVAILABLE`): try again.
    #[response(status = 503, headers(("Retry-After" = u64, description = "Seconds to wait.")))]
    Unavailable(ErrorBody),
}

/// Run a read-only SQL statement
///
/// As an analyst (`docs/security.md`), not by a token: `tallyhouse analyst` prints user and password. The request is that of
/// ClickHouse's HTTP interface: the statement in the body, its parameters as `param_NAME`. Pages of other origins are refused.
#[utoipa::path(
    post, path = "/api/v1/sql", operation_id = "runSql", tag = "Analytics",
    params(
        ("X-ClickHouse-User" = String, Header, description = "The analyst, such as `analyst`."),
        ("X-ClickHouse-Key" = Option<String>, Header, description = "The analyst's password."),
        ("default_format" = Option<String>, Query, description = "The format of the answer, one of ClickHouse's. Default: `TabSeparated`."),
    ),
    request_body(content = String, content_type = "text/plain", description = "A statement such as `SHOW TABLES`, at most 256 KiB."),
    responses(
        (status = 200, description = "The result, in the format that was asked for.", content_type = "text/plain", body = String),
        StatementFailure,
    ),
)]
pub(in crate::transport::rest) async fn run(
    State(context): State<Arc<TransportContext>>,
    request: Request,
) -> Result<Response, Failure> {
    let Some(gateway) = &context.app.sql else {
        return Err(Error::not_found("this service has no SQL gateway; see the setting sql_listen").into());
    };
    // Whether the caller is on this machine matters without authentication only, and then the port is on
    // loopback: see `server::check_is_safe`.
    let answered = gateway.run_for_own_page(request, IpAddr::V4(Ipv4Addr::LOCALHOST)).await?;
    Ok(answered.map(Body::new))
}
