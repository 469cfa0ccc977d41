//! Verdicts as they are made.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tonic::{Request, Response, Status};

use super::{convert, status};
use crate::domain::{Error, FieldError, OrgId};
use crate::ingest::outcome::Outcome;
use crate::transport::proto::outcome_service_server::OutcomeService;
use crate::transport::proto::watch_response;
use crate::transport::proto::{Verdict, WatchRequest, WatchResponse};
use crate::transport::serving::{Serving, StreamPlace};
use crate::transport::tail::{Report, Watcher};

/// See the module.
pub(super) struct Outcomes {
    serving: Arc<Serving>,
}

impl Outcomes {
    pub(super) const fn new(serving: Arc<Serving>) -> Self {
        Self { serving }
    }
}

#[tonic::async_trait]
impl OutcomeService for Outcomes {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let serving = &self.serving;
        let org_id = serving.organisation(request.metadata().as_ref()).map_err(status::of)?;
        let wanted = Wanted::new(org_id, request.into_inner()).map_err(status::of)?;
        let place = serving.stream_place().map_err(status::of)?;
        let watcher = serving.app.tail.watch().map_err(status::of)?;
        let end = Box::pin(serving.drain.end_of_stream());
        let watch = Watch { watcher, wanted, end, _place: place };
        let reports = unfold(watch, |mut watch| async move { Some((Ok(watch.next().await?), watch)) });
        Ok(Response::new(reports.boxed()))
    }
}

/// One watcher's stream.
struct Watch {
    watcher: Watcher,
    wanted: Wanted,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: StreamPlace,
}

impl Watch {
    async fn next(&mut self) -> Option<WatchResponse> {
        loop {
            let report = tokio::select! {
                () = &mut self.end => return None,
                report = self.watcher.next() => report?,
            };
            let report = match report {
                Report::Missed(missed) => watch_response::Report::Missed(missed),
                Report::Outcome(outcome) if self.wanted.includes(&outcome) => {
                    watch_response::Report::Outcome(convert::outcome(&outcome))
                }
                Report::Outcome(_) => continue,
            };
            return Some(WatchResponse { report: Some(report) });
        }
    }
}

/// What a watcher wants to see.
pub(super) struct Wanted {
    org_id: OrgId,
    /// Empty: all.
    verdicts: Vec<Verdict>,
    /// Empty: all.
    campaign_id: String,
}

impl Wanted {
    pub(super) fn new(org_id: OrgId, request: WatchRequest) -> Result<Self, Error> {
        let read = |verdict: i32| match Verdict::try_from(verdict) {
            Ok(Verdict::Unspecified) | Err(_) => None,
            Ok(verdict) => Some(verdict),
        };
        let verdicts: Option<Vec<Verdict>> = request.verdicts.into_iter().map(read).collect();
        let Some(mut verdicts) = verdicts else {
            return Err(Error::invalid(vec![FieldError::new("verdicts", "must be verdicts of this version")]));
        };
        verdicts.sort_unstable();
        verdicts.dedup();
        Ok(Self { org_id, verdicts, campaign_id: request.campaign_id })
    }

    fn includes(&self, outcome: &Outcome) -> bool {
        outcome.org_id == self.org_id
            && (self.verdicts.is_empty() || self.verdicts.contains(&convert::verdict(&outcome.verdict)))
            && (self.campaign_id.is_empty() || self.campaign_id == outcome.campaign_id)
    }
}
