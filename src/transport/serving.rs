//! What one running server shares among its requests.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::Application;
use super::auth::{Caller, Scope};
use super::drain::Drain;
use super::gate::{Gate, Place};
use super::grpc::methods::Methods;
use crate::domain::Error;
use crate::health::{Reason, ReasonCode};

/// How long the caller of a stopping service is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Serving {
    /// What requests are about.
    pub(super) app: Arc<Application>,
    /// How many there may be.
    pub(super) gate: Arc<Gate>,
    /// When streams end.
    pub(super) drain: Drain,
    /// The names of methods.
    pub(super) methods: Methods,
}

/// A stream's place among the requests in flight, and the promise to wait for
/// it when the service stops.
pub(super) struct StreamPlace {
    _place: Place,
    _token: TaskTrackerToken,
}

impl Serving {
    /// Serves this application.
    pub(super) fn new(app: Arc<Application>) -> Arc<Self> {
        let gate = Gate::new(app.config.requests_in_flight_max);
        let drain = Drain::new(app.config.connection_age_ms_max);
        let is_stopping = drain.watch();
        app.health
            .register(move || is_stopping().then(|| Reason::new(ReasonCode::Stopping, "the service is stopping")));
        Arc::new(Self { app, gate, drain, methods: Methods::default() })
    }

    /// Counts a question against its organisation's limit. (Events are counted
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

    /// A place for a stream whose request has just been let in: that one's own
    /// place is given back as soon as the stream has begun.
    ///
    /// # Errors
    /// `Unavailable` when the service is stopping.
    pub(super) fn stream_place(&self) -> Result<StreamPlace, Error> {
        if self.drain.has_begun() {
            return Err(stopping());
        }
        Ok(StreamPlace { _place: self.gate.enter_over_the_bound(), _token: self.drain.stream() })
    }
}

/// Says that the service is stopping.
pub(super) fn stopping() -> Error {
    Error::unavailable("the service is stopping", RETRY_AFTER)
}
