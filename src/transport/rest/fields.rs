//! Fields of JSON objects. Each field is validated by itself, so that every invalid field is reported.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::domain::{Error, FieldError, PropertiesDraft, Timestamp};
use crate::json;
use crate::transport::error::failure::Failure;
use crate::transport::{properties, rfc3339};

/// Why a text is not the JSON object that it should be.
#[derive(Debug)]
pub(super) struct NotAnObject {
    /// Whether it is no JSON at all.
    pub(super) is_malformed: bool,
    /// What it must be.
    pub(super) message: String,
}

impl NotAnObject {
    /// 400 for what is no JSON, 422 for JSON that is something else.
    pub(super) fn failure(self) -> Failure {
        if self.is_malformed { Failure::malformed_json(self.message) } else { self.invalid("body").into() }
    }

    /// Invalid in either case; names the field.
    pub(super) fn invalid(self, field: &str) -> Error {
        Error::invalid_field(field, self.message)
    }
}

/// Reads one JSON object. Its fields are not judged yet.
pub(super) fn read_object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, NotAnObject> {
    let text =
        str::from_utf8(bytes).map_err(|_| NotAnObject { is_malformed: true, message: "must be UTF-8".to_owned() })?;
    let text = json::without_bom(text);
    // An array would do for a struct, as far as serde is concerned.
    let is_object = text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{');
    let error = match serde_json::from_str(text) {
        Ok(object) if is_object => return Ok(object),
        Ok(_) => None,
        Err(error) => Some(error).filter(|error| error.classify() != Category::Data || is_object),
    };
    let expected = "must be one JSON object";
    Err(NotAnObject {
        is_malformed: error.as_ref().is_some_and(|error| error.classify() != Category::Data),
        message: error.map_or_else(|| expected.to_owned(), |error| format!("{expected}: {error}")),
    })
}

/// Collects what is wrong with the fields. A faulty field is taken for empty,
/// so that nothing more is said of it.
#[derive(Default)]
pub(super) struct FieldErrors(pub(super) Vec<FieldError>);

impl FieldErrors {
    pub(super) fn add(&mut self, field: &str, message: &str) {
        self.0.push(FieldError::new(field, message));
    }

    pub(super) fn optional<'t>(&mut self, field: &str, text: &'t Text<'_>) -> &'t str {
        match text {
            Text::Given(text) => text,
            Text::Absent => "",
            Text::Wrong => {
                self.add(field, "must be a string");
                ""
            }
        }
    }

    /// A time. What is left out is none; whether it may be is not said here. An
    /// empty text is not left out: it is no time.
    pub(super) fn time(&mut self, field: &str, text: &Text<'_>) -> Option<Timestamp> {
        let given = self.optional(field, text);
        let time = rfc3339::parse(given);
        if time.is_none() && matches!(text, Text::Given(_)) {
            self.add(field, rfc3339::EXPECTED);
        }
        time
    }

    /// A whole number from 0 to 2^64 - 1; 0 when there is none.
    pub(super) fn number(&mut self, field: &str, value: Option<&RawValue>) -> u64 {
        let read = value.map_or(Ok(0), |value| value.get().parse());
        read.unwrap_or_else(|_| {
            self.add(field, "must be a whole number from 0 to 18446744073709551615");
            0
        })
    }

    pub(super) fn object(
        &mut self,
        field: &str,
        value: Option<&RawValue>,
        bytes_max: usize,
    ) -> PropertiesDraft<'static> {
        let read = value.map_or(Ok(PropertiesDraft::None), |value| properties::read(field, value.get(), bytes_max));
        read.unwrap_or_else(|errors| {
            self.0.extend(errors);
            PropertiesDraft::None
        })
    }
}

/// A field that should be a string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Text<'a> {
    /// Left out, or null.
    #[default]
    Absent,
    Given(Cow<'a, str>),
    /// Something else.
    Wrong,
}

impl Text<'_> {
    /// The organization that is named, if one is. (A name that is no text is no
    /// organization's.)
    pub(super) fn org_id(&self) -> Option<&str> {
        match self {
            Self::Given(org_id) => Some(org_id),
            Self::Wrong => Some(""),
            Self::Absent => None,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Takes any JSON, so that every field can be judged and not only the first
/// that is wrong.
struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text::Given(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text<'de>, E> {
        Ok(Text::Absent)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Text<'de>, E> {
        Ok(Text::Wrong)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Text<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Text::Wrong)
    }

    /// Numbers come this way, too.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Text<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Text::Wrong)
    }
}

/// The items of a list that may have 1 to `MAX`. No more of them are kept,
/// whatever comes.
pub(super) struct FirstItems<'a, const MAX: usize> {
    items: Vec<&'a RawValue>,
    count: usize,
}

impl<'a, const MAX: usize> FirstItems<'a, MAX> {
    /// Reads a field that is such a list. The error names it.
    pub(super) fn read(field: &str, value: Option<&'a RawValue>) -> Result<Vec<&'a RawValue>, Error> {
        let Some(value) = value else { return Err(Error::invalid_field(field, "is required")) };
        let expected = format!("must be a list of 1 to {MAX} objects");
        match serde_json::from_str(value.get()) {
            Ok(Self { items, count }) if (1..=MAX).contains(&count) => Ok(items),
            Ok(Self { count, .. }) => Err(Error::invalid_field(field, format!("{expected}; it has {count}"))),
            Err(_) => Err(Error::invalid_field(field, expected)),
        }
    }
}

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for FirstItems<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstItemsVisitor)
    }
}

struct FirstItemsVisitor<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for FirstItemsVisitor<MAX> {
    type Value = FirstItems<'de, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<FirstItems<'de, MAX>, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX
            && let Some(item) = seq.next_element()?
        {
            items.push(item);
        }
        let mut count = items.len();
        while seq.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(FirstItems { items, count })
    }
}
