//! A stored show.

use std::fmt;

use uuid::Uuid;

use super::status::Status;
use super::text::{CreatedBy, InternalNotes, Location, Title};
use super::timestamp::Timestamp;

/// Bytes of a UUID as text.
const UUID_BYTES: usize = 36;

/// The id of a show: a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShowId(Uuid);

impl ShowId {
    /// A new one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The show that has this UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Reads a UUID with its four hyphens, in letters of either case. Each show
    /// has one address: other ways to write a UUID are not read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == UUID_BYTES { Uuid::try_parse(text).ok().map(Self) } else { None }
    }

    /// As a UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ShowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// Counts the changes of a show, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(i64);

impl Version {
    /// That of a show that has never been changed.
    pub const FIRST: Self = Self(1);

    /// The version of this number.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> i64 {
        self.0
    }

    /// The one that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A stored show with all fields, including private ones. Public answers are made from it by a type
/// without the private fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Show {
    /// The id.
    pub id: ShowId,
    /// The title.
    pub title: Title,
    /// The start.
    pub start_at: Timestamp,
    /// The end, after the start.
    pub end_at: Timestamp,
    /// The location.
    pub location: Location,
    /// Its status.
    pub status: Status,
    /// Private.
    pub internal_notes: Option<InternalNotes>,
    /// Private.
    pub created_by: Option<CreatedBy>,
    /// When it was created or last changed. Private.
    pub updated_at: Timestamp,
    /// The number of changes. Private.
    pub version: Version,
}

impl Show {
    /// Whether it has not started yet.
    #[must_use]
    pub fn is_upcoming(&self, now: Timestamp) -> bool {
        self.start_at > now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_show_has_one_address() {
        let id = "0192f0c1-2b3c-7d4e-8f50-61728394a5b6";
        assert_eq!(ShowId::parse(id).unwrap().to_string(), id);
        assert_eq!(ShowId::parse(&id.to_uppercase()).unwrap().to_string(), id);
        for text in
            ["", "1", &id.replace('-', ""), &format!("{{{id}}}"), &format!("urn:uuid:{id}"), &id.replace('0', "g")]
        {
            assert_eq!(ShowId::parse(text), None, "{text}");
        }
    }
}
