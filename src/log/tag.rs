//! Segments in few bits.

use super::Ordinal;

/// Stands for a segment in 6 bits: one of 63 tags, given out in turn. Segments may share a tag; whoever
/// looks for the segment of a tag takes all of them, which errs on the safe side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTag(u8);

impl SegmentTag {
    /// Bits of a tag.
    pub const BITS: u32 = 6;

    /// No segment in particular.
    pub const NONE: Self = Self(0);

    /// The tag of the segment with this ordinal.
    #[allow(clippy::cast_possible_truncation, reason = "less than 64")]
    pub const fn of(ordinal: Ordinal) -> Self {
        Self(1 + (ordinal % 63) as u8)
    }

    /// Its 6 bits; 0 for none.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Of the lowest 6 bits.
    pub const fn of_bits(bits: u8) -> Self {
        Self(bits & 63)
    }
}

/// A set of segment tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTags(u64);

impl SegmentTags {
    /// Whether a tag is among them.
    pub const fn contains(self, tag: SegmentTag) -> bool {
        self.0 & (1 << tag.0) != 0
    }
}

impl FromIterator<SegmentTag> for SegmentTags {
    fn from_iter<I: IntoIterator<Item = SegmentTag>>(tags: I) -> Self {
        Self(tags.into_iter().fold(0, |set, tag| set | 1 << tag.0))
    }
}
