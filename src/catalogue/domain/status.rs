//! The statuses of a show and the table of allowed transitions.

use std::fmt;

/// The status of a show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Being prepared. Only administrators see it.
    Draft,
    /// Visible to the public.
    Published,
    /// Cancelled. Still visible to the public.
    Cancelled,
}

/// Every change of status that there is.
const TRANSITIONS: [(Status, Status); 3] =
    [(Status::Draft, Status::Published), (Status::Draft, Status::Cancelled), (Status::Published, Status::Cancelled)];

impl Status {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Draft, Self::Published, Self::Cancelled];
    /// A description of valid texts.
    pub const EXPECTED: &'static str = "must be DRAFT, PUBLISHED or CANCELLED";

    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "DRAFT",
            Self::Published => "PUBLISHED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// Reads a name; capital letters are significant.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// Whether a transition to another status is allowed. (The same status is not a transition.)
    #[must_use]
    pub fn can_become(self, to: Self) -> bool {
        TRANSITIONS.contains(&(self, to))
    }

    /// Whether the public sees shows of this status.
    #[must_use]
    pub const fn is_public(self) -> bool {
        !matches!(self, Self::Draft)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Several statuses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusSet(Vec<Status>);

impl StatusSet {
    /// Every status.
    #[must_use]
    pub fn all() -> Self {
        Self(Status::ALL.to_vec())
    }

    /// Those that the public sees.
    #[must_use]
    pub fn public() -> Self {
        Self(Status::ALL.into_iter().filter(|status| status.is_public()).collect())
    }

    /// Reads names with commas between them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut set = Self::default();
        for name in text.split(',') {
            let status = Status::parse(name.trim())?;
            if !set.0.contains(&status) {
                set.0.push(status);
            }
        }
        Some(set)
    }

    /// Whether every show has one of these.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.len() == Status::ALL.len()
    }

    /// The statuses, each once.
    #[must_use]
    pub fn as_slice(&self) -> &[Status] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_show_is_published_once_and_cancelled_for_good() {
        use Status::{Cancelled, Draft, Published};
        for (from, to, expected) in [
            (Draft, Draft, false),
            (Draft, Published, true),
            (Draft, Cancelled, true),
            (Published, Draft, false),
            (Published, Published, false),
            (Published, Cancelled, true),
            (Cancelled, Draft, false),
            (Cancelled, Published, false),
            (Cancelled, Cancelled, false),
        ] {
            assert_eq!(from.can_become(to), expected, "{from} to {to}");
        }
    }

    #[test]
    fn lists_of_statuses_are_read() {
        let check = |text: &str, expected: Option<&[Status]>| {
            assert_eq!(StatusSet::parse(text).as_ref().map(StatusSet::as_slice), expected, "{text}");
        };
        check("DRAFT", Some(&[Status::Draft]));
        check("CANCELLED, DRAFT,CANCELLED", Some(&[Status::Cancelled, Status::Draft]));
        for text in ["", "draft", "DRAFT,", ",", "DRAFT PUBLISHED", "OTHER"] {
            check(text, None);
        }
        assert_eq!(StatusSet::public().as_slice(), [Status::Published, Status::Cancelled]);
        assert!(StatusSet::all().is_all() && !StatusSet::public().is_all());
    }
}
