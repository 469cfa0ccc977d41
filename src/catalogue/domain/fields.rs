//! Unvalidated fields of an object. Each field is validated by itself, so that every invalid field is
//! reported.

use std::collections::BTreeMap;

/// Most faults that are returned at a time.
const FAULTS_MAX: usize = 100;
/// Most characters of a field's name that are repeated to who gave it.
const NAME_CHARS_MAX: usize = 100;

/// An invalid field or parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// Its name; `body` for the body as a whole.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl FieldFault {
    /// Creates an error for a field.
    #[must_use]
    pub fn new(field: &str, message: impl Into<String>) -> Self {
        Self { field: field.chars().take(NAME_CHARS_MAX).collect(), message: message.into() }
    }
}

/// A field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GivenValue {
    /// A string.
    Text(String),
    /// Null.
    Null,
    /// Anything else.
    Other,
}

/// Fields by name, with duplicates.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    values: BTreeMap<String, GivenValue>,
    faults: Vec<FieldFault>,
}

impl Fields {
    /// Adds a field. A second one of the same name is a fault.
    pub fn add(&mut self, name: &str, value: GivenValue) {
        if self.values.insert(name.to_owned(), value).is_some() {
            self.fault(name, "must be given only once");
        }
    }

    /// The values by name, in the order of names.
    pub fn values(&self) -> impl Iterator<Item = (&str, &GivenValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Notes what is wrong with a field; one fault per field is enough.
    pub(super) fn fault(&mut self, name: &str, message: impl Into<String>) {
        if self.faults.len() < FAULTS_MAX && !self.faults.iter().any(|fault| fault.field == name) {
            self.faults.push(FieldFault::new(name, message));
        }
    }

    /// Takes a field that may be left out; none when it was.
    pub(super) fn take(&mut self, name: &str) -> Option<GivenValue> {
        self.values.remove(name)
    }

    /// Takes a string and reads it. None when there is none, or a fault.
    pub(super) fn text<T>(
        &mut self,
        name: &str,
        is_required: bool,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let read = match self.take(name) {
            Some(GivenValue::Text(text)) => parse(&text),
            Some(GivenValue::Null | GivenValue::Other) => {
                self.fault(name, format!("must be a string: {expected}"));
                return None;
            }
            None if is_required => {
                self.fault(name, "is required");
                return None;
            }
            None => return None,
        };
        if read.is_none() {
            self.fault(name, expected);
        }
        read
    }

    /// Takes a string or null and reads it. The outer none when it was left out,
    /// or is a fault.
    pub(super) fn text_or_null<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name)? {
            GivenValue::Null => Some(None),
            GivenValue::Text(text) => {
                let read = parse(&text);
                if read.is_none() {
                    self.fault(name, expected);
                }
                read.map(Some)
            }
            GivenValue::Other => {
                self.fault(name, format!("must be a string or null: {expected}"));
                None
            }
        }
    }

    /// Ends the reading: what has not been taken is a fault.
    ///
    /// # Errors
    /// Every fault.
    pub(super) fn done(mut self, message: &str) -> Result<(), Vec<FieldFault>> {
        for name in std::mem::take(&mut self.values).into_keys() {
            self.fault(&name, message);
        }
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }
}

#[cfg(test)]
impl FromIterator<(&'static str, GivenValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (&'static str, GivenValue)>>(values: I) -> Self {
        let mut fields = Self::default();
        values.into_iter().for_each(|(name, value)| fields.add(name, value));
        fields
    }
}
