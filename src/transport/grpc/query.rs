//! `QueryService`: counts and stored events.

use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::{
    Answer, Error, EventFilter, EventPage, FieldError, Limit, MILLIS_PER_DAY, MILLIS_PER_MINUTE, OrgId, PageKey,
    StatsQuery, Timestamp, Window, check_days,
};
use crate::transport::Cursors;
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::query_service_server::QueryService;
use crate::transport::proto::{
    self, GetCampaignStatsRequest, GetCampaignStatsResponse, GetDailyActiveUsersRequest, GetDailyActiveUsersResponse,
    GetEventRequest, GetEventResponse, GetTopCampaignsRequest, GetTopCampaignsResponse, GetTopUsersRequest,
    GetTopUsersResponse, ListEventsRequest, ListEventsResponse,
};

/// What of a message a page of events leaves for the rest, in bytes.
const PAGE_BYTES_REST: usize = 8 << 10;

/// Implements `QueryService`: statistics, top users and campaigns, daily active users, and single
/// events. Requires the scope `read`.
pub(super) struct Query {
    context: Arc<TransportContext>,
}

impl Query {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }

    fn read<T>(request: Request<T>) -> Result<(OrgId, T), Status> {
        Ok((super::caller(&request)?.org_id, request.into_inner()))
    }

    fn ranking(&self, window: Option<&proto::Window>, limit: u32) -> Result<(Window, Limit), Error> {
        ranking(self.context.app.clock.now(), window, limit)
    }
}

#[tonic::async_trait]
impl QueryService for Query {
    async fn get_campaign_stats(
        &self,
        request: Request<GetCampaignStatsRequest>,
    ) -> Result<Response<GetCampaignStatsResponse>, Status> {
        let (org_id, request) = Self::read(request)?;
        let app = &self.context.app;
        let question = stats_question(request, app.config.buckets_max).map_err(status::of)?;
        let StatsQuery { campaign_id, window, granularity } = question.clone();
        let answer = app.queries.campaign_stats(&org_id, question).await.map_err(status::of)?;
        Ok(Response::new(GetCampaignStatsResponse {
            campaign_id,
            window: convert::window_answered(window),
            granularity: convert::granularity_answered(granularity).into(),
            series: answer.value.iter().map(convert::bucket).collect(),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }

    async fn get_top_users(
        &self,
        request: Request<GetTopUsersRequest>,
    ) -> Result<Response<GetTopUsersResponse>, Status> {
        let (org_id, request) = Self::read(request)?;
        let (window, limit) = self.ranking(request.window.as_ref(), request.limit).map_err(status::of)?;
        let answer = self.context.app.queries.top_users(&org_id, window, limit).await.map_err(status::of)?;
        Ok(Response::new(GetTopUsersResponse {
            users: answer.value.iter().map(convert::user_count).collect(),
            window: convert::window_answered(window.outwards_to(MILLIS_PER_MINUTE)),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }

    async fn get_top_campaigns(
        &self,
        request: Request<GetTopCampaignsRequest>,
    ) -> Result<Response<GetTopCampaignsResponse>, Status> {
        let (org_id, request) = Self::read(request)?;
        let (window, limit) = self.ranking(request.window.as_ref(), request.limit).map_err(status::of)?;
        let answer = self.context.app.queries.top_campaigns(&org_id, window, limit).await.map_err(status::of)?;
        Ok(Response::new(GetTopCampaignsResponse {
            campaigns: answer.value.iter().map(convert::campaign_count).collect(),
            window: convert::window_answered(window.outwards_to(MILLIS_PER_MINUTE)),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }

    async fn get_daily_active_users(
        &self,
        request: Request<GetDailyActiveUsersRequest>,
    ) -> Result<Response<GetDailyActiveUsersResponse>, Status> {
        let (org_id, request) = Self::read(request)?;
        let window = days(request.window.as_ref()).map_err(status::of)?;
        let answer = self.context.app.queries.daily_active_users(&org_id, window).await.map_err(status::of)?;
        Ok(Response::new(GetDailyActiveUsersResponse {
            days: answer.value.iter().map(convert::day_count).collect(),
            window: convert::window_answered(window),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }

    async fn list_events(&self, request: Request<ListEventsRequest>) -> Result<Response<ListEventsResponse>, Status> {
        let (org_id, request) = Self::read(request)?;
        let app = &self.context.app;
        let (filter, limit, after) = events_question(&app.cursors, &org_id, request).map_err(status::of)?;
        let answer = app.queries.list_events(&org_id, &filter, limit, after.as_ref()).await.map_err(status::of)?;
        let Answer { value: page, watermark, cached } = answer;
        let (events, next) = fitting(page, app.config.message_bytes_max.saturating_sub(PAGE_BYTES_REST));
        let next_page_token = next.map(|key| app.cursors.after_event(&org_id, &filter, &key)).unwrap_or_default();
        Ok(Response::new(ListEventsResponse {
            events,
            next_page_token,
            freshness: convert::freshness(watermark, cached),
        }))
    }

    async fn get_event(&self, request: Request<GetEventRequest>) -> Result<Response<GetEventResponse>, Status> {
        let (org_id, GetEventRequest { event_id }) = Self::read(request)?;
        if event_id.is_empty() {
            return Err(status::of(Error::invalid_field("event_id", "is required")));
        }
        let answer = self.context.app.queries.event(&org_id, &event_id).await.map_err(status::of)?;
        Ok(Response::new(GetEventResponse {
            event: Some(convert::stored_event(answer.value)),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }
}

/// The window and the limit of a ranking.
pub(super) fn ranking(now: Timestamp, window: Option<&proto::Window>, limit: u32) -> Result<(Window, Limit), Error> {
    let mut errors = Vec::new();
    let window = match window {
        None => Some(Window::last_day(now)),
        Some(_) => convert::window(window, &mut errors),
    };
    let limit = convert::limit("limit", limit, Limit::RANKING_MAX, Limit::RANKING_DEFAULT, &mut errors);
    window.zip(limit).ok_or_else(|| Error::invalid(errors))
}

pub(super) fn stats_question(request: GetCampaignStatsRequest, buckets_max: u32) -> Result<StatsQuery, Error> {
    let mut errors = Vec::new();
    let window = convert::window(request.window.as_ref(), &mut errors);
    let granularity = convert::granularity(request.granularity);
    if granularity.is_none() {
        errors.extend(convert::unknown("granularity").fields);
    }
    match window.zip(granularity) {
        Some((window, granularity)) => StatsQuery::new(request.campaign_id, window, granularity, buckets_max),
        None => {
            if request.campaign_id.is_empty() {
                errors.insert(0, FieldError::new("campaign_id", "is required"));
            }
            Err(Error::invalid(errors))
        }
    }
}

/// A window of whole days.
pub(super) fn days(window: Option<&proto::Window>) -> Result<Window, Error> {
    let mut errors = Vec::new();
    let Some(window) = convert::window(window, &mut errors) else { return Err(Error::invalid(errors)) };
    check_days("window", window).map_err(|error| Error::invalid(vec![error]))?;
    Ok(window.outwards_to(MILLIS_PER_DAY))
}

pub(super) fn events_question(
    cursors: &Cursors,
    org_id: &OrgId,
    request: ListEventsRequest,
) -> Result<(EventFilter, Limit, Option<PageKey>), Error> {
    let mut errors = Vec::new();
    let window = match &request.window {
        None => None,
        Some(window) => convert::window(Some(window), &mut errors),
    };
    let limit = convert::limit("page_size", request.page_size, Limit::PAGE_MAX, Limit::PAGE_DEFAULT, &mut errors);
    if request.types.len() > EventFilter::TYPES_MAX {
        errors.push(FieldError::new("types", format!("may name at most {}", EventFilter::TYPES_MAX)));
    }
    let Some(limit) = limit.filter(|_| errors.is_empty()) else { return Err(Error::invalid(errors)) };
    let ListEventsRequest { campaign_id, user_id, types, page_token, .. } = request;
    let filter = EventFilter { window, campaign_id, user_id, types };
    let after = cursors.event("page_token", &page_token, org_id, &filter)?;
    Ok((filter, limit, after))
}

/// As many events of a page as fit into a message that callers take by
/// default, at least one; the next page begins with the first that did not.
fn fitting(page: EventPage, bytes_max: usize) -> (Vec<proto::StoredEvent>, Option<PageKey>) {
    let EventPage { events, next } = page;
    let mut bytes = 0;
    let mut taken: Vec<proto::StoredEvent> = Vec::with_capacity(events.len());
    let mut last: Option<(Timestamp, String)> = None;
    for event in events {
        let key = (event.occurred_at, event.event_id.clone());
        let event = convert::stored_event(event);
        bytes += event.encoded_len() + 8;
        if bytes > bytes_max
            && let Some((occurred_at, event_id)) = last
        {
            return (taken, Some(PageKey { occurred_at, event_id }));
        }
        taken.push(event);
        last = Some(key);
    }
    (taken, next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StoredEvent;

    fn page(sizes: &[usize]) -> EventPage {
        let event = |(index, size): (usize, &usize)| StoredEvent {
            event_id: index.to_string(),
            event_type: "click".to_owned(),
            campaign_id: String::new(),
            creative_id: String::new(),
            source: String::new(),
            user_id: String::new(),
            occurred_at: Timestamp::from_millis(0),
            seq: 0,
            properties: "x".repeat(*size),
            schema_version: 0,
            received_at_micros: 0,
        };
        EventPage { events: sizes.iter().enumerate().map(event).collect(), next: None }
    }

    #[test]
    fn a_page_is_cut_to_the_size_of_a_message() {
        let check = |sizes: &[usize], taken: usize, next: Option<&str>| {
            let (events, key) = fitting(page(sizes), 1_000);
            assert_eq!(events.len(), taken, "{sizes:?}");
            assert_eq!(key.map(|key| key.event_id), next.map(str::to_owned), "{sizes:?}");
        };
        check(&[], 0, None);
        check(&[100, 100], 2, None);
        check(&[400, 400, 400], 2, Some("1"));
        check(&[2_000, 1], 1, Some("0"));
        check(&[2_000], 1, None);
    }
}
