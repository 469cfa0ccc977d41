//! State that all requests of a running server share.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::application::Application;
use super::auth::{Caller, Scope};
use super::call::{self, Call};
use super::concurrency::Class;
use super::drain::Drain;
use crate::domain::Error;
use crate::health::{Reason, ReasonCode};

/// The `retry_after` of a stopping service.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state that all requests of a server share.
pub(super) struct TransportContext {
    /// The application.
    pub(super) app: Arc<Application>,
    /// The end of streams.
    pub(super) drain: Drain,
}

/// A permit of a stream. The service waits for it when it stops.
pub(super) struct StreamPermit {
    _token: TaskTrackerToken,
}

impl TransportContext {
    /// Creates it for this application.
    pub(super) fn new(app: Arc<Application>) -> Arc<Self> {
        let drain = Drain::new(app.config.connection_age_ms_max);
        let is_stopping = drain.watch();
        app.health
            .register(move || is_stopping().then(|| Reason::new(ReasonCode::Stopping, "the service is stopping")));
        Arc::new(Self { app, drain })
    }

    /// Admits an authorized call: notes its organization, takes a permit for it, and charges a query to
    /// the organization's rate limit. (Events are charged when they turn out to be new.)
    ///
    /// # Errors
    /// `Exhausted` if a limit of concurrent calls is reached, `Limited` if the rate limit is.
    pub(super) fn admit(&self, call: Option<&Arc<Call>>, caller: &Caller, scope: Scope) -> Result<(), Error> {
        if let Some(call) = call {
            call.note_organization(&caller.org_id);
            call.enter(Class::Call, Some(&caller.org_use))?;
        }
        match scope {
            Scope::Read => self.app.limits.charge_query(&caller.org_id),
            Scope::Ingest | Scope::Admin => Ok(()),
        }
    }

    /// Begins a stream for an admitted request.
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

/// The error of a stopping service.
pub(super) fn stopping() -> Error {
    Error::unavailable("the service is stopping", RETRY_AFTER)
}
