//! Texts of a show with limits on their lengths. Lengths are in characters (Unicode scalar values);
//! titles and locations are trimmed first.

/// Declares a text type: its documentation, name, shortest and longest length,
/// whether it is trimmed.
macro_rules! text_type {
    ($(#[doc = $doc:literal])+ $name:ident, $min:literal..=$max:literal, trimmed: $is_trimmed:ident) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// Most characters.
            pub const CHARS_MAX: usize = $max;
            /// A description of valid texts.
            pub const EXPECTED: &'static str = concat!(
                "must be ", $min, " to ", $max, " characters",
                text_type!(@trimmed $is_trimmed), ", without U+0000"
            );

            /// Reads a text.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let text = if $is_trimmed { text.trim() } else { text };
                has_length(text, $min, $max).then(|| Self(text.to_owned()))
            }

            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
    (@trimmed true) => { " after trimming" };
    (@trimmed false) => { "" };
}

text_type! {
    /// What a show is called.
    Title, 1..=200, trimmed: true
}
text_type! {
    /// Where a show takes place.
    Location, 1..=200, trimmed: true
}
text_type! {
    /// What its organizers note about a show. Private.
    InternalNotes, 0..=10_000, trimmed: false
}
text_type! {
    /// Who has made a show. Private.
    CreatedBy, 0..=320, trimmed: false
}

/// U+0000 is refused as PostgreSQL cannot store it.
fn has_length(text: &str, min: usize, max: usize) -> bool {
    let chars = text.chars().take(max + 1).count();
    (min..=max).contains(&chars) && !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_measured_in_characters_after_trimming() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(Title::parse(text).as_ref().map(Title::as_str), expected, "{text:?}");
        };
        check("Hamlet", Some("Hamlet"));
        check("  \u{a0}\u{2003}Hamlet \n", Some("Hamlet"));
        check("", None);
        check(" \t\u{3000}", None);
        check("a\0b", None);
        for character in ["a", "é", "語", "🎭"] {
            check(&character.repeat(200), Some(&character.repeat(200)));
            check(&format!("  {}  ", character.repeat(200)), Some(&character.repeat(200)));
            check(&character.repeat(201), None);
        }
    }

    #[test]
    fn private_texts_may_be_empty_and_are_kept_as_they_are() {
        assert_eq!(InternalNotes::parse(" a ").unwrap().as_str(), " a ");
        assert_eq!(InternalNotes::parse("").unwrap().as_str(), "");
        assert!(InternalNotes::parse(&"ü".repeat(10_000)).is_some());
        assert!(InternalNotes::parse(&"ü".repeat(10_001)).is_none());
        assert!(CreatedBy::parse(&"ü".repeat(320)).is_some());
        assert!(CreatedBy::parse(&"ü".repeat(321)).is_none());
        assert_eq!(CreatedBy::EXPECTED, "must be 0 to 320 characters, without U+0000");
        assert_eq!(Title::EXPECTED, "must be 1 to 200 characters after trimming, without U+0000");
    }
}
