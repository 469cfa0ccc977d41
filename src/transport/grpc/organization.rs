//! `OrganizationService`: organizations, users and memberships.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::domain::{
    Error, FieldError, Limit, Member, MemberDraft, OrgId, Organization, OrganizationCount, OrganizationDraft,
    UnknownTypes, User, UserDraft, nothing_wrong,
};
use crate::transport::auth::Caller;
use crate::transport::context::TransportContext;
use crate::transport::error::status;
use crate::transport::proto::organization_service_server::OrganizationService;
use crate::transport::proto::{
    self, GetOrganizationRequest, GetOrganizationResponse, GetTopOrganizationsRequest, GetTopOrganizationsResponse,
    GetUserRequest, GetUserResponse, ListMembersRequest, ListMembersResponse, PutMemberRequest, PutMemberResponse,
    PutOrganizationRequest, PutOrganizationResponse, PutUserRequest, PutUserResponse,
};

/// Implements `OrganizationService`: organizations, users and memberships. Requires the scope
/// `admin`.
pub(super) struct Organizations {
    context: Arc<TransportContext>,
}

impl Organizations {
    pub(super) const fn new(context: Arc<TransportContext>) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl OrganizationService for Organizations {
    async fn put_organization(
        &self,
        request: Request<PutOrganizationRequest>,
    ) -> Result<Response<PutOrganizationResponse>, Status> {
        let caller = super::caller(&request)?;
        let (org_id, draft) = put_organization(&caller, request.into_inner()).map_err(status::of)?;
        let stored = self.context.app.directory.put_organization(&org_id, draft).await.map_err(status::of)?;
        Ok(Response::new(PutOrganizationResponse { organization: Some(organization(stored)) }))
    }

    async fn get_organization(
        &self,
        request: Request<GetOrganizationRequest>,
    ) -> Result<Response<GetOrganizationResponse>, Status> {
        let caller = super::caller(&request)?;
        let org_id = own(&caller, &request.get_ref().org_id).map_err(status::of)?;
        let stored = self.context.app.directory.organization(&org_id).await.map_err(status::of)?;
        Ok(Response::new(GetOrganizationResponse { organization: Some(organization(stored)) }))
    }

    async fn put_user(&self, request: Request<PutUserRequest>) -> Result<Response<PutUserResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let (user_id, draft) = put_user(request.into_inner()).map_err(status::of)?;
        let stored = self.context.app.directory.put_user(&org_id, user_id, draft).await.map_err(status::of)?;
        Ok(Response::new(PutUserResponse { user: Some(user(stored)) }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let user_id = request.into_inner().user_id;
        if user_id.is_empty() {
            return Err(status::of(Error::invalid_field("user_id", "is required")));
        }
        let stored = self.context.app.directory.user(&org_id, &user_id).await.map_err(status::of)?;
        Ok(Response::new(GetUserResponse { user: Some(user(stored)) }))
    }

    async fn put_member(&self, request: Request<PutMemberRequest>) -> Result<Response<PutMemberResponse>, Status> {
        let caller = super::caller(&request)?;
        let org_id = own(&caller, &request.get_ref().org_id).map_err(status::of)?;
        let (user_id, draft) = put_member(request.into_inner()).map_err(status::of)?;
        let stored = self.context.app.directory.put_member(&org_id, user_id, draft).await.map_err(status::of)?;
        Ok(Response::new(PutMemberResponse { member: Some(member(stored)) }))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let caller = super::caller(&request)?;
        let ListMembersRequest { org_id, page_size, page_token } = request.into_inner();
        let org_id = own(&caller, &org_id).map_err(status::of)?;
        let limit = page_limit(page_size).map_err(status::of)?;
        let cursors = &self.context.app.cursors;
        let after = cursors.member("page_token", &page_token, &org_id).map_err(status::of)?;
        let page = self.context.app.directory.members(&org_id, limit, after.as_deref()).await.map_err(status::of)?;
        Ok(Response::new(ListMembersResponse {
            members: page.members.into_iter().map(member).collect(),
            next_page_token: page.next.map(|user_id| cursors.after_member(&org_id, &user_id)).unwrap_or_default(),
        }))
    }

    async fn get_top_organizations(
        &self,
        request: Request<GetTopOrganizationsRequest>,
    ) -> Result<Response<GetTopOrganizationsResponse>, Status> {
        let org_id = super::caller(&request)?.org_id;
        let (days, limit) = top_question(request.get_ref()).map_err(status::of)?;
        let directory = &self.context.app.directory;
        let (window, answer) = directory.top_organizations(&org_id, days, limit).await.map_err(status::of)?;
        Ok(Response::new(GetTopOrganizationsResponse {
            organizations: answer.value.into_iter().map(count).collect(),
            window: convert::window_answered(window),
            freshness: convert::freshness(answer.watermark, answer.cached),
        }))
    }
}

/// The organization that a request is about.
fn own(caller: &Caller, org_id: &str) -> Result<OrgId, Error> {
    if org_id.is_empty() { Ok(caller.org_id.clone()) } else { caller.organization(org_id) }
}

fn put_organization(caller: &Caller, request: PutOrganizationRequest) -> Result<(OrgId, OrganizationDraft), Error> {
    let sent = required("organization", request.organization)?;
    let org_id = own(caller, &sent.org_id)?;
    let mut errors = Vec::new();
    let unknown_event_types = match sent.unknown_event_types.try_into() {
        Ok(proto::UnknownEventTypes::Unspecified) => None,
        Ok(proto::UnknownEventTypes::Accept) => Some(UnknownTypes::Accept),
        Ok(proto::UnknownEventTypes::Reject) => Some(UnknownTypes::Reject),
        Err(_) => {
            errors.extend(convert::unknown("unknown_event_types").fields);
            None
        }
    };
    let created_at = convert::optional_time("created_at", sent.created_at.as_ref(), &mut errors);
    let draft = OrganizationDraft { name: sent.name, plan: sent.plan, unknown_event_types, created_at };
    draft.check(&mut errors);
    within("organization", errors)?;
    Ok((org_id, draft))
}

fn put_user(request: PutUserRequest) -> Result<(String, UserDraft), Error> {
    let sent = required("user", request.user)?;
    let mut errors = Vec::new();
    let created_at = convert::optional_time("created_at", sent.created_at.as_ref(), &mut errors);
    let updated_at = convert::optional_time("updated_at", sent.updated_at.as_ref(), &mut errors);
    let draft = UserDraft { email: sent.email, name: sent.name, role: sent.role, created_at, updated_at };
    draft.check(&sent.user_id, &mut errors);
    within("user", errors)?;
    Ok((sent.user_id, draft))
}

fn put_member(request: PutMemberRequest) -> Result<(String, MemberDraft), Error> {
    let sent = required("member", request.member)?;
    let mut errors = Vec::new();
    let joined_at = convert::optional_time("joined_at", sent.joined_at.as_ref(), &mut errors);
    let draft = MemberDraft { role: sent.role, joined_at };
    draft.check(&sent.user_id, &mut errors);
    within("member", errors)?;
    Ok((sent.user_id, draft))
}

fn required<T>(field: &str, message: Option<T>) -> Result<T, Error> {
    message.ok_or_else(|| Error::invalid_field(field, "is required"))
}

/// Says what is wrong within a message, if something is.
fn within(field: &str, errors: Vec<FieldError>) -> Result<(), Error> {
    let named = |error: FieldError| FieldError::new(format!("{field}.{}", error.field), error.message);
    nothing_wrong(errors.into_iter().map(named).collect())
}

fn page_limit(page_size: u32) -> Result<Limit, Error> {
    let mut errors = Vec::new();
    let limit = convert::limit("page_size", page_size, Limit::PAGE_MAX, Limit::PAGE_DEFAULT, &mut errors);
    limit.ok_or_else(|| Error::invalid(errors))
}

fn top_question(request: &GetTopOrganizationsRequest) -> Result<(Limit, Limit), Error> {
    let mut errors = Vec::new();
    let days = convert::limit("days", request.days, Limit::DAYS_MAX, Limit::DAYS_DEFAULT, &mut errors);
    let (max, default) = (Limit::RANKING_MAX, Limit::ORGANIZATIONS_DEFAULT);
    let limit = convert::limit("limit", request.limit, max, default, &mut errors);
    days.zip(limit).ok_or_else(|| Error::invalid(errors))
}

fn organization(stored: Organization) -> proto::Organization {
    let unknown_event_types = match stored.unknown_event_types {
        UnknownTypes::Accept => proto::UnknownEventTypes::Accept,
        UnknownTypes::Reject => proto::UnknownEventTypes::Reject,
    };
    proto::Organization {
        org_id: stored.org_id.as_str().to_owned(),
        name: stored.name,
        plan: stored.plan,
        unknown_event_types: unknown_event_types.into(),
        created_at: Some(convert::time(stored.created_at)),
        updated_at: Some(convert::time(stored.updated_at)),
    }
}

fn user(stored: User) -> proto::User {
    let User { user_id, email, name, role, created_at, updated_at } = stored;
    let (created_at, updated_at) = (Some(convert::time(created_at)), Some(convert::time(updated_at)));
    proto::User { user_id, email, name, role, created_at, updated_at }
}

fn member(stored: Member) -> proto::Member {
    let Member { user_id, role, joined_at } = stored;
    proto::Member { user_id, role, joined_at: Some(convert::time(joined_at)) }
}

fn count(count: OrganizationCount) -> proto::OrganizationCount {
    let OrganizationCount { org_id, name, plan, events } = count;
    proto::OrganizationCount { org_id, name, plan, events }
}
