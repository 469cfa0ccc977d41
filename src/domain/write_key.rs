//! Write keys: what browsers and other people's libraries send instead of a token.

use super::{Error, FieldError, OrgId, Timestamp};

/// A write key, as it is listed. The text that callers send is not part of it: only its digest is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// The organization whose events it may send.
    pub org_id: OrgId,
    /// Its identity: a UUIDv7.
    pub key_id: String,
    /// What people call it, 1 to [`WriteKey::NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The first characters of its text, by which people tell keys apart.
    pub prefix: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was revoked; none while it may be used.
    pub revoked_at: Option<Timestamp>,
}

impl WriteKey {
    /// Most bytes of a name.
    pub const NAME_BYTES_MAX: usize = 100;
    /// What every key's text begins with. No token begins like this.
    pub const TEXT_PREFIX: &'static str = "thw_";

    /// Checks a name.
    ///
    /// # Errors
    /// `Invalid`, naming `name`.
    pub fn check_name(name: &str) -> Result<(), Error> {
        let message = if name.trim().is_empty() {
            "is required".to_owned()
        } else if name.len() > Self::NAME_BYTES_MAX {
            format!("must be at most {} bytes; it has {}", Self::NAME_BYTES_MAX, name.len())
        } else if name.chars().any(char::is_control) {
            "must not contain control characters".to_owned()
        } else {
            return Ok(());
        };
        Err(Error::invalid(vec![FieldError::new("name", message)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_texts() {
        let check = |name: &str, is_good: bool| assert_eq!(WriteKey::check_name(name).is_ok(), is_good, "{name:?}");
        check("web", true);
        check(&"x".repeat(100), true);
        check(&"x".repeat(101), false);
        check("", false);
        check(" ", false);
        check("a\nb", false);
    }
}
