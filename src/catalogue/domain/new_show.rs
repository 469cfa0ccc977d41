//! Validates the fields of a new show.

use super::fields::{FieldFault, Fields};
use super::notification::NotificationKind;
use super::show::{Show, ShowId, Version};
use super::status::Status;
use super::text::{CreatedBy, InternalNotes, Location, Title};
use super::timestamp::Timestamp;

/// What is said of a field that shows do not have.
const UNKNOWN: &str =
    "is not known; the fields are title, startAt, endAt, location, status, internalNotes and createdBy";

/// A validated new show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewShow {
    title: Title,
    start_at: Timestamp,
    end_at: Timestamp,
    location: Location,
    status: Status,
    internal_notes: Option<InternalNotes>,
    created_by: Option<CreatedBy>,
}

impl NewShow {
    /// Validates the fields. A show must not begin before `now`.
    ///
    /// # Errors
    /// Every invalid field.
    pub fn parse(mut fields: Fields, now: Timestamp) -> Result<Self, Vec<FieldFault>> {
        let title = fields.text("title", true, Title::EXPECTED, Title::parse);
        let start_at = fields.text("startAt", true, Timestamp::EXPECTED, Timestamp::parse);
        let end_at = fields.text("endAt", true, Timestamp::EXPECTED, Timestamp::parse);
        let location = fields.text("location", true, Location::EXPECTED, Location::parse);
        let status = fields.text("status", false, Status::EXPECTED, Status::parse);
        let notes = fields.text_or_null("internalNotes", InternalNotes::EXPECTED, InternalNotes::parse);
        let created_by = fields.text_or_null("createdBy", CreatedBy::EXPECTED, CreatedBy::parse);
        if start_at.is_some_and(|start_at| start_at < now) {
            fields.fault("startAt", "must not be in the past");
        }
        if start_at.zip(end_at).is_some_and(|(start_at, end_at)| start_at >= end_at) {
            fields.fault("endAt", "must be after startAt");
        }
        fields.done(UNKNOWN)?;
        let (Some(title), Some(start_at), Some(end_at), Some(location)) = (title, start_at, end_at, location) else {
            // Each of them has a fault, which `done` has returned.
            return Err(vec![FieldFault::new("body", "is not a show")]);
        };
        Ok(Self {
            title,
            start_at,
            end_at,
            location,
            status: status.unwrap_or(Status::Draft),
            internal_notes: notes.flatten(),
            created_by: created_by.flatten(),
        })
    }

    /// Makes it.
    #[must_use]
    pub fn into_show(self, id: ShowId, now: Timestamp) -> Show {
        Show {
            id,
            title: self.title,
            start_at: self.start_at,
            end_at: self.end_at,
            location: self.location,
            status: self.status,
            internal_notes: self.internal_notes,
            created_by: self.created_by,
            updated_at: now,
            version: Version::FIRST,
        }
    }

    /// The notifications of its creation.
    #[must_use]
    pub fn notifications(&self) -> Vec<NotificationKind> {
        std::iter::once(NotificationKind::Created).chain(NotificationKind::of_status(self.status)).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::GivenValue;

    fn now() -> Timestamp {
        Timestamp::parse("2030-01-01T00:00:00Z").unwrap()
    }

    fn text(text: &str) -> GivenValue {
        GivenValue::Text(text.to_owned())
    }

    fn good() -> Vec<(&'static str, GivenValue)> {
        vec![
            ("title", text("Hamlet")),
            ("startAt", text("2030-01-01T00:00:00Z")),
            ("endAt", text("2030-01-01T00:00:00.001Z")),
            ("location", text("Straße 1")),
        ]
    }

    /// The fields at fault when these are given instead of or with good ones.
    fn faults(given: &[(&'static str, GivenValue)]) -> Vec<String> {
        let mut fields = good();
        fields.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
        fields.extend(given.iter().cloned());
        let faults = NewShow::parse(fields.into_iter().collect(), now()).err().unwrap_or_default();
        faults.into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn a_show_is_a_draft_unless_it_says_otherwise() {
        let show = NewShow::parse(good().into_iter().collect(), now()).unwrap().into_show(ShowId::random(), now());
        assert_eq!(show.status, Status::Draft);
        assert_eq!((show.internal_notes, show.created_by, show.version), (None, None, Version::FIRST));
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let check = |given: &[(&'static str, GivenValue)], expected: &[&str]| {
            assert_eq!(faults(given), expected, "{given:?}");
        };
        check(&[], &[]);
        check(
            &[("title", text(" ")), ("id", text("1")), ("location", GivenValue::Other)],
            &["title", "location", "id"],
        );
        check(&[("title", GivenValue::Null)], &["title"]);
        check(&[("startAt", text("2029-12-31T23:59:59.999Z"))], &["startAt"]);
        check(
            &[("startAt", text("2029-12-31T23:59:59.999Z")), ("endAt", text("2029-01-01T00:00:00Z"))],
            &["startAt", "endAt"],
        );
        check(&[("endAt", text("2030-01-01T00:00:00.0009Z"))], &["endAt"]);
        check(&[("endAt", text("2030-01-01T00:59:59.999+01:00"))], &["endAt"]);
        check(&[("endAt", text("tomorrow"))], &["endAt"]);
        check(&[("status", text("draft"))], &["status"]);
        check(&[("status", GivenValue::Null)], &["status"]);
        check(&[("internalNotes", GivenValue::Null), ("createdBy", GivenValue::Null)], &[]);
        check(
            &[("internalNotes", GivenValue::Other), ("createdBy", text(&"a".repeat(321)))],
            &["internalNotes", "createdBy"],
        );
        check(&[("title", text("a")), ("title", text("a"))], &["title"]);
        let none = NewShow::parse(Fields::default(), now()).unwrap_err();
        let none: Vec<&str> = none.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(none, ["title", "startAt", "endAt", "location"]);
    }

    #[test]
    fn a_flood_of_unknown_fields_has_a_bounded_answer() {
        let mut fields: Fields = good().into_iter().collect();
        (0..10_000).for_each(|number| fields.add(&format!("{number}{}", "x".repeat(1_000)), GivenValue::Null));
        let faults = NewShow::parse(fields, now()).unwrap_err();
        assert_eq!(faults.len(), 100);
        assert!(faults.iter().all(|fault| fault.field.len() == 100));
    }

    fn given_value() -> impl Strategy<Value = GivenValue> {
        prop_oneof![
            Just(GivenValue::Null),
            Just(GivenValue::Other),
            "\\PC{0,6}".prop_map(GivenValue::Text),
            Just(text("2030-06-01T00:00:00Z")),
            Just(text("PUBLISHED")),
        ]
    }

    proptest! {
        #[test]
        fn what_is_made_is_within_its_bounds(values in proptest::collection::vec(
            (prop::sample::select(vec!["title", "startAt", "endAt", "location", "status", "internalNotes", "createdBy", "x"]), given_value()), 0..9,
        )) {
            let mut fields = good();
            fields.retain(|(name, _)| !values.iter().any(|(other, _)| other == name));
            fields.extend(values);
            match NewShow::parse(fields.clone().into_iter().collect(), now()) {
                Ok(new) => {
                    let show = new.into_show(ShowId::random(), now());
                    prop_assert!(show.start_at < show.end_at && show.start_at >= now());
                    prop_assert!(Title::parse(show.title.as_str()) == Some(show.title));
                    prop_assert!(!fields.iter().any(|(name, _)| *name == "x"));
                }
                Err(faults) => prop_assert!(!faults.is_empty()),
            }
        }
    }
}
