//! The directory: organizations, their users, and memberships.
//!
//! A stored value replaces the previous one and can be read as soon as the call is answered. It belongs to
//! one organization. A single query covers all of them: the organizations with the most events.

use std::sync::Arc;

use crate::clickhouse::directory::DirectoryStore;
use crate::clickhouse::query_limiter::QueryLimiter;
use crate::clock::ArrivalClock;
use crate::domain::{
    Answer, Error, Limit, MILLIS_PER_DAY, Member, MemberDraft, MemberPage, OrgId, Organization, OrganizationCount,
    OrganizationDraft, Ranking, User, UserDraft, Window,
};
use crate::event_types::EventTypes;
use crate::log::Segments;

/// Stores and reads organizations, users and memberships. A change is stored in ClickHouse when it
/// is answered.
pub struct Directory {
    store: DirectoryStore,
    event_types: Arc<EventTypes>,
    limiter: Arc<QueryLimiter>,
    clock: Arc<ArrivalClock>,
    segments: Arc<Segments>,
    all_organizations: AllOrganizations,
}

/// Who can query all organizations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllOrganizations {
    /// Every caller: without authentication there is one organization.
    OpenToAll,
    /// Only the operator's organization, if one is configured.
    OperatorOnly(Option<OrgId>),
}

impl AllOrganizations {
    fn check(&self, asking: &OrgId) -> Result<(), Error> {
        match self {
            Self::OpenToAll => Ok(()),
            Self::OperatorOnly(Some(operator)) if operator == asking => Ok(()),
            Self::OperatorOnly(_) => {
                Err(Error::forbidden("only the organization that runs this service may ask about all others"))
            }
        }
    }
}

impl Directory {
    /// A directory in this store. Decisions on unknown event types are passed to `event_types`.
    pub const fn new(
        store: DirectoryStore,
        event_types: Arc<EventTypes>,
        limiter: Arc<QueryLimiter>,
        clock: Arc<ArrivalClock>,
        segments: Arc<Segments>,
        all_organizations: AllOrganizations,
    ) -> Self {
        Self { store, event_types, limiter, clock, segments, all_organizations }
    }

    /// An organization.
    ///
    /// # Errors
    /// `NotFound` if it does not exist.
    pub async fn organization(&self, org_id: &OrgId) -> Result<Organization, Error> {
        let found = self.limiter.run(org_id, |ticket| self.store.organization(ticket, org_id)).await?;
        found.ok_or_else(|| Error::not_found("this organization is not registered"))
    }

    /// Creates or replaces an organization from a validated draft.
    pub async fn put_organization(&self, org_id: &OrgId, draft: OrganizationDraft) -> Result<Organization, Error> {
        let old = self.limiter.run(org_id, |ticket| self.store.organization(ticket, org_id)).await?;
        let new = draft.replacing(org_id.clone(), old.as_ref(), self.clock.now());
        self.limiter.run(org_id, |_| self.store.put_organization(&new, self.clock.arrivals(1))).await?;
        self.event_types.set_unknown_types(org_id, new.unknown_event_types);
        Ok(new)
    }

    /// A user of an organization.
    ///
    /// # Errors
    /// `NotFound` if it does not exist.
    pub async fn user(&self, org_id: &OrgId, user_id: &str) -> Result<User, Error> {
        let found = self.limiter.run(org_id, |ticket| self.store.user(ticket, org_id, user_id)).await?;
        found.ok_or_else(|| Error::not_found("there is no user with this id"))
    }

    /// Creates or replaces a user from a validated draft.
    pub async fn put_user(&self, org_id: &OrgId, user_id: String, draft: UserDraft) -> Result<User, Error> {
        let old = self.limiter.run(org_id, |ticket| self.store.user(ticket, org_id, &user_id)).await?;
        let new = draft.replacing(user_id, old.as_ref(), self.clock.now());
        self.limiter.run(org_id, |_| self.store.put_user(org_id, &new, self.clock.arrivals(1))).await?;
        Ok(new)
    }

    /// A page of an organization's members, by user id, from the one after
    /// `after`.
    pub async fn members(&self, org_id: &OrgId, limit: Limit, after: Option<&str>) -> Result<MemberPage, Error> {
        let after = after.unwrap_or_default();
        // One more than asked for tells whether there is a further page.
        let mut members =
            self.limiter.run(org_id, |ticket| self.store.members(ticket, org_id, after, limit.get() + 1)).await?;
        let has_more = members.len() > limit.get() as usize;
        members.truncate(limit.get() as usize);
        let next = members.last().filter(|_| has_more).map(|member| member.user_id.clone());
        Ok(MemberPage { members, next })
    }

    /// Creates or replaces a membership from a validated draft. The user does not have to exist.
    pub async fn put_member(&self, org_id: &OrgId, user_id: String, draft: MemberDraft) -> Result<Member, Error> {
        let old = self.limiter.run(org_id, |ticket| self.store.member(ticket, org_id, &user_id)).await?;
        let new = draft.replacing(user_id, old.as_ref(), self.clock.now());
        self.limiter.run(org_id, |_| self.store.put_member(org_id, &new, self.clock.arrivals(1))).await?;
        Ok(new)
    }

    /// The organizations with the most events of the last days, including today, and the window.
    /// Never cached.
    ///
    /// # Errors
    /// `Forbidden` for all but the operator, if authentication is on.
    pub async fn top_organizations(
        &self,
        asking: &OrgId,
        days: Limit,
        limit: Limit,
    ) -> Result<(Window, Answer<Ranking<OrganizationCount>>), Error> {
        self.all_organizations.check(asking)?;
        let now = self.clock.now();
        let watermark = self.segments.watermark(now);
        let to = now.plus_millis(1).ceil_to(MILLIS_PER_DAY);
        let window = Window::new(to.plus_millis(-i64::from(days.get()) * MILLIS_PER_DAY), to)?;
        let value = self.limiter.run(asking, |ticket| self.store.top_organizations(ticket, window, limit)).await?;
        Ok((window, Answer { value, watermark, cached: false }))
    }
}
