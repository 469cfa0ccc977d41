//! Questions: answered from the rollups, through a cache.

mod source;

use std::sync::Arc;

pub use source::{AnswerSource, SourceError};

use crate::domain::{
    Answer, CampaignCount, CampaignStats, DayCount, Error, EventFilter, EventPage, Limit, OrgId, PageKey, Ranking,
    StatsQuestion, StoredEvent, UserCount, Window,
};

/// Answers questions about one organisation at a time.
pub struct Queries {}

impl Queries {
    /// One campaign's counts over time.
    pub async fn campaign_stats(
        &self,
        org_id: &OrgId,
        question: StatsQuestion,
    ) -> Result<Answer<Arc<CampaignStats>>, Error> {
        todo!()
    }

    /// The users with the most events of the window, which is rounded outwards
    /// to whole minutes.
    pub async fn top_users(
        &self,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
    ) -> Result<Answer<Arc<Ranking<UserCount>>>, Error> {
        todo!()
    }

    /// The campaigns with the most events of the window, which is rounded
    /// outwards to whole minutes.
    pub async fn top_campaigns(
        &self,
        org_id: &OrgId,
        window: Window,
        limit: Limit,
    ) -> Result<Answer<Arc<Ranking<CampaignCount>>>, Error> {
        todo!()
    }

    /// The different users of each day of the window, which is rounded
    /// outwards to whole days.
    pub async fn daily_active_users(
        &self,
        org_id: &OrgId,
        window: Window,
    ) -> Result<Answer<Arc<Vec<DayCount>>>, Error> {
        todo!()
    }

    /// A page of events, newest first. Never cached.
    pub async fn list_events(
        &self,
        org_id: &OrgId,
        filter: &EventFilter,
        limit: Limit,
        after: Option<&PageKey>,
    ) -> Result<Answer<EventPage>, Error> {
        todo!()
    }

    /// One event. Never cached.
    ///
    /// # Errors
    /// `NotFound` when there is none of this id.
    pub async fn event(&self, org_id: &OrgId, event_id: &str) -> Result<Answer<StoredEvent>, Error> {
        todo!()
    }
}
