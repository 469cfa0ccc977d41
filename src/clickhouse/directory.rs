//! The SQL of the directory: organizations, users, memberships.
//!
//! These tables are small. Rows are written one at a time by synchronous inserts as the service's own
//! user, and read with `FINAL` as the user that sees one organization's rows. A row can be read as soon as
//! its insert has been answered. One query covers all organizations and runs as the service's own user.

use clickhouse::{Client, Row, RowOwned, RowWrite};
use serde::{Deserialize, Serialize};

use super::client::Endpoint;
use super::error::QueryError;
use super::pinned::pinned;
use super::query_store::{QueryStore, all, seconds};
use super::ticket::QueryTicket;
use crate::domain::{
    Limit, Member, OrgId, Organization, OrganizationCount, Ranking, Timestamp, UnknownTypes, User, Window,
};

/// What makes an answered insert a stored one, whatever the server's defaults.
const INSERT_SETTINGS: [(&str, &str); 3] =
    [("async_insert", "0"), ("insert_deduplicate", "0"), ("wait_end_of_query", "1")];

/// Inserts rows as one block.
pub(super) async fn insert<T>(client: &Client, table: &str, rows: impl Iterator<Item = T>) -> Result<(), QueryError>
where
    T: RowOwned + RowWrite,
{
    let settings = INSERT_SETTINGS.into_iter();
    let client = settings.fold(client.clone(), |client, (name, value)| client.with_setting(name, value));
    let mut insert = client.insert::<T>(table).await?;
    for row in rows {
        insert.write(&row).await?;
    }
    Ok(insert.end().await?)
}

/// Reads and writes organizations, users and memberships.
pub struct DirectoryStore {
    answers: QueryStore,
    service: Client,
}

impl DirectoryStore {
    /// Creates it for this server: one user reads, the other writes.
    pub fn new(reader: &Endpoint, service: &Endpoint) -> Self {
        Self { answers: QueryStore::new(reader), service: pinned(service.client()) }
    }

    /// One organization.
    pub async fn organization(&self, ticket: QueryTicket, org_id: &OrgId) -> Result<Option<Organization>, QueryError> {
        let statement = "SELECT name, plan, unknown_event_types, toUnixTimestamp64Milli(created_at) AS created, \
                    toUnixTimestamp64Milli(updated_at) AS updated \
             FROM organizations FINAL WHERE org_id = {org:String}";
        let row: Option<OrganizationRow> = self.answers.ask(&ticket, statement, org_id).fetch_optional().await?;
        Ok(row.map(|row| row.into_domain(org_id.clone())))
    }

    /// Stores an organization, which replaces lower versions.
    pub async fn put_organization(&self, organization: &Organization, version: u64) -> Result<(), QueryError> {
        let Organization { org_id, name, plan, unknown_event_types, created_at, updated_at } = organization.clone();
        let row = NewOrganizationRow {
            org_id: org_id.as_str().to_owned(),
            name,
            plan,
            unknown_event_types: unknown_event_types.as_str().to_owned(),
            created_at: created_at.millis(),
            updated_at: updated_at.millis(),
            version,
        };
        insert(&self.service, "organizations", std::iter::once(row)).await
    }

    /// One user of an organization.
    pub async fn user(&self, ticket: QueryTicket, org_id: &OrgId, user_id: &str) -> Result<Option<User>, QueryError> {
        let statement = "SELECT user_id, email, name, role, toUnixTimestamp64Milli(created_at) AS created, \
                    toUnixTimestamp64Milli(updated_at) AS updated \
             FROM users FINAL WHERE org_id = {org:String} AND user_id = {user:String}";
        let row: Option<UserRow> =
            self.answers.ask(&ticket, statement, org_id).param("user", user_id).fetch_optional().await?;
        Ok(row.map(UserRow::into_domain))
    }

    /// Stores a user, which replaces lower versions.
    pub async fn put_user(&self, org_id: &OrgId, user: &User, version: u64) -> Result<(), QueryError> {
        let User { user_id, email, name, role, created_at, updated_at } = user.clone();
        let row = NewUserRow {
            org_id: org_id.as_str().to_owned(),
            user_id,
            email,
            name,
            role,
            created_at: created_at.millis(),
            updated_at: updated_at.millis(),
            version,
        };
        insert(&self.service, "users", std::iter::once(row)).await
    }

    /// One membership.
    pub async fn member(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        user_id: &str,
    ) -> Result<Option<Member>, QueryError> {
        let statement = "SELECT user_id, role, toUnixTimestamp64Milli(joined_at) AS joined \
             FROM memberships FINAL WHERE org_id = {org:String} AND user_id = {user:String}";
        let query = self.answers.ask(&ticket, statement, org_id).param("user", user_id);
        let row: Option<MemberRow> = query.fetch_optional().await?;
        Ok(row.map(MemberRow::into_domain))
    }

    /// The members that follow `after`, by user id.
    pub async fn members(
        &self,
        ticket: QueryTicket,
        org_id: &OrgId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<Member>, QueryError> {
        let statement = "SELECT user_id, role, toUnixTimestamp64Milli(joined_at) AS joined \
             FROM memberships FINAL WHERE org_id = {org:String} AND user_id > {after:String} \
             ORDER BY user_id LIMIT {limit:UInt32}";
        let query = self.answers.ask(&ticket, statement, org_id).param("after", after).param("limit", limit);
        let rows: Vec<MemberRow> = all(query).await?;
        Ok(rows.into_iter().map(MemberRow::into_domain).collect())
    }

    /// Stores a membership, which replaces lower versions.
    pub async fn put_member(&self, org_id: &OrgId, member: &Member, version: u64) -> Result<(), QueryError> {
        let Member { user_id, role, joined_at } = member.clone();
        let row =
            NewMemberRow { org_id: org_id.as_str().to_owned(), user_id, role, joined_at: joined_at.millis(), version };
        insert(&self.service, "memberships", std::iter::once(row)).await
    }

    /// The organizations with the most events of a window of whole hours, among all organizations.
    pub async fn top_organizations(
        &self,
        ticket: QueryTicket,
        window: Window,
        limit: Limit,
    ) -> Result<Ranking<OrganizationCount>, QueryError> {
        let statement = "SELECT toString(counted.org_id) AS org_id, known.name AS name, toString(known.plan) AS plan, \
                    counted.total AS events \
             FROM (SELECT org_id, sum(events) AS total FROM type_hours \
                   WHERE hour >= toDateTime({from:UInt32}, 'UTC') AND hour < toDateTime({to:UInt32}, 'UTC') \
                   GROUP BY org_id HAVING total != 0 ORDER BY total DESC, org_id LIMIT {limit:UInt32}) AS counted \
             LEFT JOIN (SELECT org_id, name, plan FROM organizations FINAL) AS known ON known.org_id = counted.org_id \
             ORDER BY events DESC, org_id SETTINGS join_use_nulls = 0";
        let query = ticket.put_on(self.service.query_raw(statement)).param("from", seconds(window.from()));
        let query = query.param("to", seconds(window.to())).param("limit", limit.get());
        let rows: Vec<CountRow> = all(query).await?;
        Ok(rows.into_iter().map(CountRow::into_domain).collect())
    }
}

#[derive(Row, Deserialize)]
struct OrganizationRow {
    name: String,
    plan: String,
    unknown_event_types: String,
    created: i64,
    updated: i64,
}

impl OrganizationRow {
    fn into_domain(self, org_id: OrgId) -> Organization {
        Organization {
            org_id,
            name: self.name,
            plan: self.plan,
            unknown_event_types: UnknownTypes::parse(&self.unknown_event_types).unwrap_or_default(),
            created_at: Timestamp::from_millis(self.created),
            updated_at: Timestamp::from_millis(self.updated),
        }
    }
}

#[derive(Row, Serialize)]
struct NewOrganizationRow {
    org_id: String,
    name: String,
    plan: String,
    unknown_event_types: String,
    created_at: i64,
    updated_at: i64,
    version: u64,
}

#[derive(Row, Deserialize)]
struct UserRow {
    user_id: String,
    email: String,
    name: String,
    role: String,
    created: i64,
    updated: i64,
}

impl UserRow {
    fn into_domain(self) -> User {
        let Self { user_id, email, name, role, created, updated } = self;
        let (created_at, updated_at) = (Timestamp::from_millis(created), Timestamp::from_millis(updated));
        User { user_id, email, name, role, created_at, updated_at }
    }
}

#[derive(Row, Serialize)]
struct NewUserRow {
    org_id: String,
    user_id: String,
    email: String,
    name: String,
    role: String,
    created_at: i64,
    updated_at: i64,
    version: u64,
}

#[derive(Row, Deserialize)]
struct MemberRow {
    user_id: String,
    role: String,
    joined: i64,
}

impl MemberRow {
    fn into_domain(self) -> Member {
        Member { user_id: self.user_id, role: self.role, joined_at: Timestamp::from_millis(self.joined) }
    }
}

#[derive(Row, Serialize)]
struct NewMemberRow {
    org_id: String,
    user_id: String,
    role: String,
    joined_at: i64,
    version: u64,
}

#[derive(Row, Deserialize)]
struct CountRow {
    org_id: String,
    name: String,
    plan: String,
    events: u64,
}

impl CountRow {
    fn into_domain(self) -> OrganizationCount {
        let Self { org_id, name, plan, events } = self;
        OrganizationCount { org_id, name, plan, events }
    }
}
