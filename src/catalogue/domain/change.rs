//! Changes of a show: which fields change, and whether the transition is allowed.

use super::fields::{FieldFault, Fields};
use super::notification::{Notification, NotificationKind};
use super::show::{Show, Version};
use super::status::Status;
use super::text::InternalNotes;
use super::timestamp::Timestamp;

/// What is said of any other field.
const NOT_CHANGEABLE: &str = "cannot be changed; the fields that can are status and internalNotes";

/// A change of a show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowChange {
    /// The new status.
    pub status: Option<Status>,
    /// The new notes; the inner none removes them.
    pub internal_notes: Option<Option<InternalNotes>>,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The show cannot go from one status to the other.
    InvalidTransition {
        /// The status it has.
        from: Status,
        /// The one it cannot have.
        to: Status,
    },
    /// The show is not in a version that the caller knows.
    Outdated,
}

/// The decision on a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes.
    Keep,
    /// The show is replaced.
    Replace {
        /// The show from then on.
        show: Box<Show>,
        /// The notifications of the change.
        notifications: Vec<Notification>,
    },
    /// The change is refused.
    Refuse(Refusal),
}

impl ShowChange {
    /// Validates the fields.
    ///
    /// # Errors
    /// Every invalid field.
    pub fn parse(mut fields: Fields) -> Result<Self, Vec<FieldFault>> {
        let status = fields.text("status", false, Status::EXPECTED, Status::parse);
        let internal_notes = fields.text_or_null("internalNotes", InternalNotes::EXPECTED, InternalNotes::parse);
        fields.done(NOT_CHANGEABLE)?;
        Ok(Self { status, internal_notes })
    }

    /// Decides on the change, for a show in one of the `expected` versions (none: in any).
    #[must_use]
    pub fn decide(&self, show: &Show, expected: Option<&[Version]>, now: Timestamp) -> Decision {
        if expected.is_some_and(|versions| !versions.contains(&show.version)) {
            return Decision::Refuse(Refusal::Outdated);
        }
        let to = self.status.unwrap_or(show.status);
        if to != show.status && !show.status.can_become(to) {
            return Decision::Refuse(Refusal::InvalidTransition { from: show.status, to });
        }
        let internal_notes = self.internal_notes.as_ref().unwrap_or(&show.internal_notes);
        if to == show.status && *internal_notes == show.internal_notes {
            return Decision::Keep;
        }
        let changed = Show {
            status: to,
            internal_notes: internal_notes.clone(),
            // Clocks may be put back.
            updated_at: now.max(show.updated_at),
            version: show.version.next(),
            ..show.clone()
        };
        let kind = if to == show.status { None } else { NotificationKind::of_status(to) };
        let notifications = kind.map(|kind| Notification::about(&changed, kind, now)).into_iter().collect();
        Decision::Replace { show: Box::new(changed), notifications }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{GivenValue, Location, ShowId, Title};

    fn show(status: Status) -> Show {
        let now = Timestamp::from_millis(1_000);
        Show {
            id: ShowId::random(),
            title: Title::parse("Hamlet").unwrap(),
            start_at: now.plus_millis(1),
            end_at: now.plus_millis(2),
            location: Location::parse("Helsingør").unwrap(),
            status,
            internal_notes: InternalNotes::parse("a"),
            created_by: None,
            updated_at: now,
            version: Version::from_number(7),
        }
    }

    fn to(status: Status) -> ShowChange {
        ShowChange { status: Some(status), internal_notes: None }
    }

    #[test]
    fn exactly_the_transitions_of_the_table_are_made_and_notified() {
        for from in Status::ALL {
            for status in Status::ALL {
                let show = show(from);
                match to(status).decide(&show, None, Timestamp::from_millis(2_000)) {
                    Decision::Keep => assert_eq!(from, status),
                    Decision::Refuse(refusal) => {
                        assert!(!from.can_become(status) && from != status);
                        assert_eq!(refusal, Refusal::InvalidTransition { from, to: status });
                    }
                    Decision::Replace { show: changed, notifications } => {
                        assert!(from.can_become(status));
                        let kinds: Vec<NotificationKind> =
                            notifications.iter().map(|notification| notification.kind).collect();
                        assert_eq!(kinds, NotificationKind::of_status(status).into_iter().collect::<Vec<_>>());
                        let expected = Show {
                            status,
                            updated_at: Timestamp::from_millis(2_000),
                            version: Version::from_number(8),
                            ..show
                        };
                        assert_eq!(*changed, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn notes_are_changed_removed_and_left() {
        let check = |given: Option<GivenValue>, expected: Option<Option<&str>>| {
            let fields: Fields = given.map(|value| ("internalNotes", value)).into_iter().collect();
            let decision =
                ShowChange::parse(fields).unwrap().decide(&show(Status::Cancelled), None, Timestamp::from_millis(0));
            let changed = match &decision {
                Decision::Replace { show, notifications } => {
                    assert!(notifications.is_empty());
                    assert_eq!(show.updated_at, Timestamp::from_millis(1_000), "time does not go back");
                    Some(show.internal_notes.as_ref().map(InternalNotes::as_str))
                }
                Decision::Keep => None,
                Decision::Refuse(refusal) => panic!("{refusal:?}"),
            };
            assert_eq!(changed, expected);
        };
        check(None, None);
        check(Some(GivenValue::Text("a".to_owned())), None);
        check(Some(GivenValue::Text(String::new())), Some(Some("")));
        check(Some(GivenValue::Null), Some(None));
    }

    #[test]
    fn other_fields_cannot_be_changed() {
        let text = |text: &str| GivenValue::Text(text.to_owned());
        let fields = [("title", text("a")), ("status", GivenValue::Null), ("id", GivenValue::Other)];
        let faults = ShowChange::parse(fields.into_iter().collect()).unwrap_err();
        assert_eq!(faults.iter().map(|fault| &*fault.field).collect::<Vec<_>>(), ["status", "id", "title"]);
    }

    #[test]
    fn a_change_of_an_outdated_version_is_refused_before_it_is_judged() {
        let decide = |versions: &[i64]| {
            let versions: Vec<Version> = versions.iter().copied().map(Version::from_number).collect();
            to(Status::Draft).decide(&show(Status::Cancelled), Some(&versions), Timestamp::from_millis(0))
        };
        assert_eq!(decide(&[]), Decision::Refuse(Refusal::Outdated));
        assert_eq!(decide(&[6, 8]), Decision::Refuse(Refusal::Outdated));
        let refused = Refusal::InvalidTransition { from: Status::Cancelled, to: Status::Draft };
        assert_eq!(decide(&[6, 7]), Decision::Refuse(refused));
    }
}
