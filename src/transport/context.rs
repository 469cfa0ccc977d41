//! State that all requests of a running server share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Application;
use super::auth::{Caller, Scope};
use super::call;
use super::concurrency::Class;
use super::drain::Drain;
use super::grpc::methods::Methods;
use crate::domain::Error;
use crate::health::{Reason, ReasonCode};

/// How long the caller of a stopping service is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state that all requests of a server share.
pub(super) struct TransportContext {
    /// What requests are about.
    pub(super) app: Arc<Application>,
    /// When streams end.
    pub(super) drain: Drain,
    /// The names of methods.
    pub(super) methods: Methods,
}

/// The promise to wait for a stream when the service stops.
pub(super) struct StreamPermit {
    _token: TaskTrackerToken,
}

impl TransportContext {
    /// Serves this application.
    pub(super) fn new(app: Arc<Application>) -> Arc<Self> {
        let drain = Drain::new(app.config.connection_age_ms_max);
        let is_stopping = drain.watch();
        app.health
            .register(move || is_stopping().then(|| Reason::new(ReasonCode::Stopping, "the service is stopping")));
        Arc::new(Self { app, drain, methods: Methods::default() })
    }

    /// Counts a question against its organization's limit. (Events are counted
    /// when they turn out to be new.)
    ///
    /// # Errors
    /// `Limited`.
    pub(super) fn check_rate(&self, caller: &Caller, scope: Scope) -> Result<(), Error> {
        match scope {
            Scope::Read => self.app.limits.charge_query(&caller.org_id),
            Scope::Ingest | Scope::Admin => Ok(()),
        }
    }

    /// Lets a request that has been let in go on as a stream.
    ///
    /// # Errors
    /// `Unavailable` when the service is stopping, `Exhausted` when there are as
    /// many streams as there may be.
    pub(super) fn begin_stream<T>(&self, request: &tonic::Request<T>, caller: &Caller) -> Result<StreamPermit, Error> {
        if self.drain.has_begun() {
            return Err(stopping());
        }
        if let Some(call) = call::of_rpc(request) {
            call.enter(Class::Stream, Some(&caller.org_use))?;
        }
        Ok(StreamPermit { _token: self.drain.stream() })
    }
}

/// Says that the service is stopping.
pub(super) fn stopping() -> Error {
    Error::unavailable("the service is stopping", RETRY_AFTER)
}
