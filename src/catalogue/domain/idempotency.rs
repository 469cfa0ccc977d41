//! Idempotency keys and the hash of a call's body.

use sha2::{Digest as _, Sha256};

use super::fields::{Fields, GivenValue};
use super::timestamp::{MILLIS_PER_DAY, Timestamp};

/// An idempotency key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// Most characters.
    pub const CHARS_MAX: usize = 255;
    /// A description of valid keys.
    pub const EXPECTED: &'static str = "must be 1 to 255 characters, none of them a control character";

    /// Reads a key.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let chars = text.chars().take(Self::CHARS_MAX + 1).count();
        let is_key = (1..=Self::CHARS_MAX).contains(&chars) && !text.chars().any(char::is_control);
        is_key.then(|| Self(text.to_owned()))
    }

    /// The key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The expiry of a key that is used now: after 24 hours.
    #[must_use]
    pub const fn expires_at(now: Timestamp) -> Timestamp {
        now.plus_millis(MILLIS_PER_DAY)
    }
}

/// The SHA-256 of a body's fields. White space and the order of fields do not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a body.
    #[must_use]
    pub fn of(fields: &Fields) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        for (name, value) in fields.values() {
            part(name.as_bytes());
            match value {
                GivenValue::Null => part(b"null"),
                GivenValue::Other => part(b"other"),
                GivenValue::Text(text) => {
                    part(b"text");
                    part(text.as_bytes());
                }
            }
        }
        Self(hash.finalize().into())
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_short_and_printable() {
        for key in ["a", "0192-é 語", &"ü".repeat(255)] {
            assert_eq!(IdempotencyKey::parse(key).unwrap().as_str(), key);
        }
        for key in ["", "a\n", "\0", &"a".repeat(256)] {
            assert!(IdempotencyKey::parse(key).is_none());
        }
    }

    #[test]
    fn bodies_are_told_apart_by_their_fields() {
        let text = |text: &str| GivenValue::Text(text.to_owned());
        let of = |fields: &[(&'static str, GivenValue)]| Fingerprint::of(&fields.iter().cloned().collect());
        let a = of(&[("title", text("a")), ("location", text("b"))]);
        assert_eq!(a, of(&[("location", text("b")), ("title", text("a"))]));
        assert_ne!(a, of(&[("title", text("b")), ("location", text("a"))]));
        assert_ne!(a, of(&[("title", text("a"))]));
        assert_ne!(of(&[("title", text("null"))]), of(&[("title", GivenValue::Null)]));
        assert_ne!(of(&[("ab", text("c"))]), of(&[("a", text("bc"))]));
    }
}
