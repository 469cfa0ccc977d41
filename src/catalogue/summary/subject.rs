//! The fields that a summary is generated from, and its cache key.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::domain::{Show, Status, Timestamp};

/// The public fields of a show that its summary is made of, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummarySubject {
    /// The title.
    pub title: String,
    /// The start.
    pub start_at: Timestamp,
    /// The end.
    pub end_at: Timestamp,
    /// The location.
    pub location: String,
    /// Whether it is cancelled.
    pub is_cancelled: bool,
}

impl SummarySubject {
    /// The summary of a show is made of this.
    #[must_use]
    pub fn of(show: &Show) -> Self {
        Self {
            title: show.title.as_str().to_owned(),
            start_at: show.start_at,
            end_at: show.end_at,
            location: show.location.as_str().to_owned(),
            is_cancelled: show.status == Status::Cancelled,
        }
    }
}

/// SHA-256 of the subject and of the summarizer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SummaryKey([u8; 32]);

impl SummaryKey {
    /// The key of a subject's summary by this summarizer.
    #[must_use]
    pub fn of(subject: &SummarySubject, summarizer: &str) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        part(summarizer.as_bytes());
        part(subject.title.as_bytes());
        part(subject.location.as_bytes());
        part(&subject.start_at.millis().to_le_bytes());
        part(&subject.end_at.millis().to_le_bytes());
        part(&[u8::from(subject.is_cancelled)]);
        Self(hash.finalize().into())
    }
}

impl fmt::Display for SummaryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_what_a_summary_is_made_of_is_another_key() {
        let at = Timestamp::from_millis;
        let subject = SummarySubject {
            title: "ab".to_owned(),
            start_at: at(1),
            end_at: at(2),
            location: "c".to_owned(),
            is_cancelled: false,
        };
        let others = [
            SummarySubject { title: "a".to_owned(), location: "bc".to_owned(), ..subject.clone() },
            SummarySubject { start_at: at(0), ..subject.clone() },
            SummarySubject { end_at: at(3), ..subject.clone() },
            SummarySubject { is_cancelled: true, ..subject.clone() },
        ];
        let key = SummaryKey::of(&subject, "x");
        assert_eq!(SummaryKey::of(&subject.clone(), "x"), key);
        assert_ne!(SummaryKey::of(&subject, "y"), key);
        for other in others {
            assert_ne!(SummaryKey::of(&other, "x"), key, "{other:?}");
        }
        assert_eq!(key.to_string().len(), 64);
    }
}
