//! Organizations, users and memberships.

use super::event::{BLANK, has_control, is_blank};
use super::{Error, FieldError, OrgId, Timestamp};

/// The earliest storable time, in milliseconds. Times are in the years 1900 to 2299.
const TIME_MIN: Timestamp = Timestamp::from_millis(-2_208_988_800_000);
const TIME_MAX: Timestamp = Timestamp::from_millis(10_413_791_999_999);
/// Most bytes of a name of a person or an organization, and of a user's id.
const NAME_BYTES_MAX: usize = 256;
/// Most bytes of a plan and of a role.
const WORD_BYTES_MAX: usize = 64;
/// Most bytes of an e-mail address (RFC 5321: 64, an at sign, 255).
const EMAIL_BYTES_MAX: usize = 320;

/// The handling of events of unregistered types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownTypes {
    /// They are accepted.
    #[default]
    Accept,
    /// They are rejected.
    Reject,
}

impl UnknownTypes {
    /// The name in JSON and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
        }
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Accept, Self::Reject].into_iter().find(|policy| policy.as_str() == text)
    }
}

/// An organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub org_id: OrgId,
    /// Its name.
    pub name: String,
    /// Its subscription plan; empty if unknown.
    pub plan: String,
    /// The handling of its events of unregistered types.
    pub unknown_event_types: UnknownTypes,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last replaced.
    pub updated_at: Timestamp,
}

/// An unvalidated organization. A missing field keeps its value; for a new organization it gets the
/// default.
#[derive(Clone, Debug, Default)]
pub struct OrganizationDraft {
    /// See [`Organization::name`]. Required; 1 to 256 bytes.
    pub name: String,
    /// See [`Organization::plan`]. At most 64 bytes.
    pub plan: String,
    /// See [`Organization::unknown_event_types`].
    pub unknown_event_types: Option<UnknownTypes>,
    /// See [`Organization::created_at`]; now, for a new one.
    pub created_at: Option<Timestamp>,
}

impl OrganizationDraft {
    /// Adds every invalid field to `errors`.
    pub fn check(&self, errors: &mut Vec<FieldError>) {
        check_name("name", &self.name, NAME_BYTES_MAX, errors);
        check_text("plan", &self.plan, WORD_BYTES_MAX, errors);
        check_time("created_at", self.created_at, errors);
    }

    /// The value that replaces `old`.
    pub fn replacing(self, org_id: OrgId, old: Option<&Organization>, now: Timestamp) -> Organization {
        let Self { name, plan, unknown_event_types, created_at } = self;
        Organization {
            org_id,
            name,
            plan,
            unknown_event_types: unknown_event_types.or(old.map(|old| old.unknown_event_types)).unwrap_or_default(),
            created_at: created_at.or(old.map(|old| old.created_at)).unwrap_or(now),
            updated_at: now,
        }
    }
}

/// A user of an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user's id, as in events.
    pub user_id: String,
    /// The e-mail address; empty when unknown.
    pub email: String,
    /// The name; empty when unknown.
    pub name: String,
    /// The user's role; empty if unknown.
    pub role: String,
    /// When the user was created.
    pub created_at: Timestamp,
    /// When this was last replaced.
    pub updated_at: Timestamp,
}

/// An unvalidated user.
#[derive(Clone, Debug, Default)]
pub struct UserDraft {
    /// See [`User::email`]. At most 320 bytes.
    pub email: String,
    /// See [`User::name`]. At most 256 bytes.
    pub name: String,
    /// See [`User::role`]. At most 64 bytes.
    pub role: String,
    /// See [`User::created_at`]. None: as it was, or now.
    pub created_at: Option<Timestamp>,
    /// See [`User::updated_at`]. None: now.
    pub updated_at: Option<Timestamp>,
}

impl UserDraft {
    /// Adds every invalid field to `errors`.
    pub fn check(&self, user_id: &str, errors: &mut Vec<FieldError>) {
        check_name("user_id", user_id, NAME_BYTES_MAX, errors);
        check_text("email", &self.email, EMAIL_BYTES_MAX, errors);
        check_text("name", &self.name, NAME_BYTES_MAX, errors);
        check_text("role", &self.role, WORD_BYTES_MAX, errors);
        check_time("created_at", self.created_at, errors);
        check_time("updated_at", self.updated_at, errors);
    }

    /// The value that replaces `old`.
    pub fn replacing(self, user_id: String, old: Option<&User>, now: Timestamp) -> User {
        let Self { email, name, role, created_at, updated_at } = self;
        let created_at = created_at.or(old.map(|old| old.created_at)).unwrap_or(now);
        User { user_id, email, name, role, created_at, updated_at: updated_at.unwrap_or(now) }
    }
}

/// A membership of a user in an organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The user's id.
    pub user_id: String,
    /// The member's role; empty if unknown.
    pub role: String,
    /// The start of the membership.
    pub joined_at: Timestamp,
}

/// An unvalidated membership.
#[derive(Clone, Debug, Default)]
pub struct MemberDraft {
    /// See [`Member::role`]. At most 64 bytes.
    pub role: String,
    /// See [`Member::joined_at`]. None: as it was, or now.
    pub joined_at: Option<Timestamp>,
}

impl MemberDraft {
    /// Adds every invalid field to `errors`.
    pub fn check(&self, user_id: &str, errors: &mut Vec<FieldError>) {
        check_name("user_id", user_id, NAME_BYTES_MAX, errors);
        check_text("role", &self.role, WORD_BYTES_MAX, errors);
        check_time("joined_at", self.joined_at, errors);
    }

    /// The value that replaces `old`.
    pub fn replacing(self, user_id: String, old: Option<&Member>, now: Timestamp) -> Member {
        let joined_at = self.joined_at.or(old.map(|old| old.joined_at)).unwrap_or(now);
        Member { user_id, role: self.role, joined_at }
    }
}

/// A page of memberships, by user id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPage {
    /// The memberships.
    pub members: Vec<Member>,
    /// The user after which the next page starts; none if this is the last page.
    pub next: Option<String>,
}

/// One organization's count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrganizationCount {
    /// The organization.
    pub org_id: String,
    /// Its name; empty when it is not registered.
    pub name: String,
    /// Its plan; empty when it is not registered.
    pub plan: String,
    /// Events of every type.
    pub events: u64,
}

/// Returns an `Invalid` error if there are errors.
pub fn nothing_wrong(errors: Vec<FieldError>) -> Result<(), Error> {
    if errors.is_empty() { Ok(()) } else { Err(Error::invalid(errors)) }
}

fn is_named(field: &str, errors: &[FieldError]) -> bool {
    errors.iter().any(|error| error.field == field)
}

fn check_name(field: &str, text: &str, bytes_max: usize, errors: &mut Vec<FieldError>) {
    if !text.is_empty() {
        check_text(field, text, bytes_max, errors);
    } else if !is_named(field, errors) {
        errors.push(FieldError::new(field, "is required"));
    }
}

fn check_text(field: &str, text: &str, bytes_max: usize, errors: &mut Vec<FieldError>) {
    if text.len() > bytes_max {
        errors.push(FieldError::new(field, format!("must be at most {bytes_max} bytes; it has {}", text.len())));
    } else if has_control(text) {
        errors.push(FieldError::new(field, "must not contain control characters"));
    } else if is_blank(text) {
        errors.push(FieldError::new(field, BLANK));
    }
}

fn check_time(field: &str, time: Option<Timestamp>, errors: &mut Vec<FieldError>) {
    if time.is_some_and(|time| !(TIME_MIN..=TIME_MAX).contains(&time)) {
        errors.push(FieldError::new(field, "must lie in the years 1900 to 2299"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const BEFORE: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    #[test]
    fn a_replacement_keeps_what_it_does_not_name() {
        let draft = || OrganizationDraft { name: "Acme".to_owned(), ..OrganizationDraft::default() };
        let org = OrgId::default_org;
        let old = OrganizationDraft {
            unknown_event_types: Some(UnknownTypes::Reject),
            created_at: Some(BEFORE),
            plan: "pro".to_owned(),
            ..draft()
        }
        .replacing(org(), None, NOW);
        let new = draft().replacing(org(), Some(&old), NOW);
        assert_eq!((new.created_at, new.unknown_event_types, &*new.plan), (BEFORE, UnknownTypes::Reject, ""));
        let other = OrganizationDraft { created_at: Some(NOW), ..draft() }.replacing(org(), Some(&old), NOW);
        assert_eq!(other.created_at, NOW, "unless it is named");
        let first = draft().replacing(org(), None, NOW);
        assert_eq!((first.created_at, first.unknown_event_types), (NOW, UnknownTypes::Accept));
    }

    #[test]
    fn every_bad_field_is_named() {
        let mut errors = Vec::new();
        let far = Some(Timestamp::from_millis(i64::MAX));
        let long = "x".repeat(400);
        let draft = UserDraft {
            email: long.clone(),
            name: long.clone(),
            role: "a\nb".to_owned(),
            created_at: far,
            updated_at: far,
        };
        draft.check("", &mut errors);
        let fields: Vec<&str> = errors.iter().map(|error| &*error.field).collect();
        assert_eq!(fields, ["user_id", "email", "name", "role", "created_at", "updated_at"]);
        let mut errors = Vec::new();
        OrganizationDraft { plan: long, ..OrganizationDraft::default() }.check(&mut errors);
        assert_eq!(errors.iter().map(|error| &*error.field).collect::<Vec<_>>(), ["name", "plan"]);
    }
}
