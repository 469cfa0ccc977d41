//! Case folding of text, by which locations are searched.

use icu_casemap::CaseMapper;
use icu_normalizer::ComposingNormalizerBorrowed;

/// A text in composed form (NFC) and then fully case-folded (Unicode, 3.13:
/// `CaseFolding.txt`, statuses C and F): `STRASSE` and `Straße` are the same,
/// and so are an `é` of one character and one of two. The folding is that of no
/// language in particular: a Turkish `İ` is an `i` with a dot above, and not an
/// `i`. How a character is folded never changes once it is in the standard, so
/// that folded texts can be kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoldedText(String);

impl FoldedText {
    /// Folds a text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let composed = ComposingNormalizerBorrowed::new_nfc().normalize(text);
        Self(CaseMapper::new().fold_string(&composed).into_owned())
    }

    /// Whether it contains another one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }

    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn case_is_folded_in_full() {
        let check = |text: &str, part: &str, expected: bool| {
            assert_eq!(FoldedText::new(text).contains(&FoldedText::new(part)), expected, "{part:?} in {text:?}");
        };
        check("Hauptstraße 5", "STRASSE", true);
        check("HAUPTSTRASSE 5", "straße", true);
        check("GROẞE HALLE", "grosse", true);
        check("Straße", "STRAẞE", true);
        check("ΜΈΓΑΡΟ ΜΟΥΣΙΚΉΣ", "μουσικής", true);
        check("Ὀδός", "ὈΔΌΣ", true);
        check("ﬁlharmonic", "FILHARM", true);
        check("МОСКВА", "москва", true);
        check("ᏣᎳᎩ", "ꮳꮃꭹ", true);
        check("K", "\u{212a}", true);
        // A Turkish dotted capital is an i with a dot above, and a dotless small letter its own.
        check("İstanbul", "i\u{307}stanbul", true);
        check("İstanbul", "İSTANBUL", true);
        check("İstanbul", "istanbul", false);
        check("ısparta", "isparta", false);
        // One character or two, the same letter.
        check("Cafe\u{301} Central", "CAFÉ", true);
        check("CAFÉ", "cafe\u{301}", true);
        check("Café", "cafe", false);
        check("Cafe\u{301}", "cafe", false);
        check("Å", "\u{212b}", true);
        // What other places would take for wildcards.
        check("100% live", "0% L", true);
        check("100 live", "%", false);
        check("hall_a", "_", true);
        check("halla", "l_a", false);
        check("a\\b", "\\", true);
        check("東京ドーム", "京ド", true);
        check("", "", true);
    }

    proptest! {
        #[test]
        fn a_text_contains_its_parts_in_any_case(text in "\\PC{0,12}", from in 0_usize..12, length in 0_usize..12) {
            let composed = ComposingNormalizerBorrowed::new_nfc().normalize(&text);
            // A part that begins with a combining character may compose with others by itself.
            let part: String = composed.chars().skip(from).take(length).collect();
            let is_part_composed = ComposingNormalizerBorrowed::new_nfc().is_normalized(&part);
            prop_assume!(is_part_composed);
            let folded = FoldedText::new(&text);
            prop_assert!(folded.contains(&FoldedText::new(&part)));
        }
    }
}
