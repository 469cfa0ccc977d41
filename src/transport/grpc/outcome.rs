//! `OutcomeService`: verdicts as they occur.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, unfold};
use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::{Error, FieldError, OrgId};
use crate::ingest::outcome::Outcome;
use crate::transport::context::{StreamPermit, TransportContext};
use crate::transport::error::status;
use crate::transport::proto::outcome_service_server::OutcomeService;
use crate::transport::proto::watch_response;
use crate::transport::proto::{Verdict, WatchRequest, WatchResponse};
use crate::transport::tail::{Report, Watcher};

/// Implements `OutcomeService`: the live tail of verdicts. Requires the scope `read`.
pub(super) struct Outcomes {
    context: Arc<TransportContext>,
}

impl Outcomes {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl OutcomeService for Outcomes {
    type WatchStream = BoxStream<'static, Result<WatchResponse, Status>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let context = &self.context;
        let caller = super::caller(&request)?;
        let place = context.begin_stream(&request, &caller).map_err(status::of)?;
        let wanted = Wanted::new(caller.org_id.clone(), request.into_inner()).map_err(status::of)?;
        let watcher = context.app.tail.watch(&caller.org_id).map_err(status::of)?;
        let end = Box::pin(context.drain.end_of_stream());
        let expired = Box::pin(caller.expired());
        let watch = Watch { watcher, wanted, end, expired, _place: place };
        let reports = unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await? {
                Ok(report) => Some((Ok(report), Some(watch))),
                Err(error) => Some((Err(status::of(error)), None)),
            }
        });
        Ok(Response::new(reports.boxed()))
    }
}

/// One watcher's stream.
struct Watch {
    watcher: Watcher,
    wanted: Wanted,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    expired: Pin<Box<dyn Future<Output = Error> + Send>>,
    _place: StreamPermit,
}

impl Watch {
    /// The next report, or why there are no more; none at the end.
    async fn next(&mut self) -> Option<Result<WatchResponse, Error>> {
        loop {
            let report = tokio::select! {
                biased;
                () = &mut self.end => return None,
                error = &mut self.expired => return Some(Err(error)),
                report = self.watcher.next() => report?,
            };
            let report = match report {
                Report::Missed(missed) => watch_response::Report::Missed(missed),
                Report::Outcome(outcome) if self.wanted.includes(&outcome) => {
                    watch_response::Report::Outcome(convert::outcome(&outcome))
                }
                Report::Outcome(_) => continue,
            };
            return Some(Ok(WatchResponse { report: Some(report) }));
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
