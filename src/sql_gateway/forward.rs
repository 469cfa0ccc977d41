//! Runs a checked statement in ClickHouse, and ends it when its time is over or its caller disconnects.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tokio_util::task::TaskTracker;

use super::credentials::Principal;
use super::error::GatewayError;
use super::queue::RunPermit;
use super::{ANSWER_WAIT_MAX, GRACE, response};
use crate::clickhouse::client::Endpoint;
use crate::config::Config;

/// Longest wait for a killed statement to end.
const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// Most bytes of an error that are read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Sends checked statements to ClickHouse over HTTP. Ends a statement in ClickHouse (`KILL QUERY`)
/// when its time is over or its caller disconnects.
#[derive(Debug)]
pub(super) struct StatementRunner {
    client: reqwest::Client,
    endpoint: Endpoint,
    run_max: Duration,
    tasks: TaskTracker,
}

/// A checked statement.
pub(super) struct Statement<'a> {
    pub principal: &'a Principal,
    pub sql: String,
    pub params: Vec<(String, String)>,
    pub accept_encoding: Option<HeaderValue>,
    pub query_id: String,
}

/// An answer whose rows are still to be read.
pub(super) struct Answer {
    pub headers: HeaderMap,
    pub body: AnswerBody,
}

impl StatementRunner {
    pub(super) fn new(config: &Config, endpoint: Endpoint, tasks: TaskTracker) -> std::io::Result<Self> {
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let client = client.build().map_err(std::io::Error::other)?;
        Ok(Self { client, endpoint, run_max: Duration::from_secs(config.analyst_seconds_max) + GRACE, tasks })
    }

    /// Runs a statement. Its permit is released when it has ended in ClickHouse.
    ///
    /// # Errors
    /// What ClickHouse refused, or that it does not answer.
    pub(super) async fn run(&self, statement: Statement<'_>, turn: RunPermit) -> Result<Answer, GatewayError> {
        let Statement { principal, sql, params, accept_encoding, query_id } = statement;
        let running = self.running(&query_id, turn);
        let mut request = self
            .client
            .post(&self.endpoint.url)
            .query(&[("database", &*principal.scope.database), ("query_id", &*query_id)])
            // Without the whole result, an error could come in the middle of it.
            .query(&[("wait_end_of_query", "1")])
            .query(&params)
            .header("X-ClickHouse-User", &principal.engine_user)
            .header("X-ClickHouse-Key", principal.engine_password.expose())
            .body(sql);
        if let Some(encoding) = accept_encoding {
            request = request.header(ACCEPT_ENCODING, encoding);
        }
        let answered = tokio::time::timeout(self.run_max, request.send()).await;
        let answer = answered.map_err(|_| GatewayError::too_long())?.map_err(|error| {
            tracing::warn!(%error, "a statement of an analyst received no answer");
            GatewayError::away()
        })?;
        if answer.status().is_success() {
            let headers = response::headers(answer.headers(), &query_id);
            return Ok(Answer { headers, body: AnswerBody::new(answer, running) });
        }
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = error_text(answer).await;
        running.has_ended();
        Err(response::error(status, &headers, &body, &principal.scope))
    }

    fn running(&self, query_id: &str, turn: RunPermit) -> Running {
        let endpoint = &self.endpoint;
        let kill = self
            .client
            .post(&endpoint.url)
            .header("X-ClickHouse-User", &endpoint.user)
            .header("X-ClickHouse-Key", endpoint.password.expose())
            // The id is this service's own.
            .body(format!("KILL QUERY WHERE query_id = '{query_id}' SYNC FORMAT Null"));
        Running { kill: Some((kill, turn)), tasks: self.tasks.clone() }
    }
}

/// A statement in ClickHouse. Dropped before it has ended, it is killed there, and
/// its turn is over when that is done.
struct Running {
    kill: Option<(reqwest::RequestBuilder, RunPermit)>,
    tasks: TaskTracker,
}

impl Running {
    fn has_ended(mut self) {
        self.kill = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some((kill, turn)) = self.kill.take() else { return };
        self.tasks.spawn(async move {
            let killed = tokio::time::timeout(KILL_WAIT_MAX, kill.send()).await;
            match killed {
                Ok(Ok(answer)) if answer.status().is_success() => {}
                Ok(Ok(answer)) => {
                    let error = answer.text().await.unwrap_or_default();
                    tracing::warn!(error, "a statement of an analyst could not be killed");
                }
                Ok(Err(error)) => tracing::warn!(%error, "a statement of an analyst could not be killed"),
                Err(_) => tracing::warn!("a statement of an analyst continues after it was killed"),
            }
            drop(turn);
        });
    }
}

async fn error_text(mut answer: reqwest::Response) -> Vec<u8> {
    let mut text = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = answer.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > ERROR_BYTES_MAX {
                break;
            }
        }
    };
    // What is there by then will do.
    let _ = tokio::time::timeout(GRACE, read).await;
    text
}

/// The rows of an answer, as they come.
pub(super) struct AnswerBody {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    running: Option<Running>,
    deadline: Pin<Box<Sleep>>,
}

impl AnswerBody {
    fn new(answer: reqwest::Response, running: Running) -> Self {
        let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + ANSWER_WAIT_MAX));
        Self { chunks: Box::pin(answer.bytes_stream()), running: Some(running), deadline }
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.deadline.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err(std::io::Error::other("the answer was not read in time"))));
        }
        match self.chunks.as_mut().poll_next(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(chunk))) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(std::io::Error::other(error)))),
            Poll::Ready(None) => {
                if let Some(running) = self.running.take() {
                    running.has_ended();
                }
                Poll::Ready(None)
            }
        }
    }
}
