//! When an event occurred and which segment holds it, in the few bits that the
//! index has for them.

use crate::domain::{MILLIS_PER_MINUTE, Timestamp};

/// The minute of an event, as the index counts it: minutes since 1970, at
/// least 1. (Earlier times all fall into the first minute, which is as good a
/// bucket as any.) Fits 26 bits until the year 2097.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(pub(super) u32);

impl Minute {
    pub(super) const LAST: u32 = (1 << 26) - 1;

    /// The minute of a moment.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 26 bits")]
    pub fn of(moment: Timestamp) -> Self {
        Self((moment.millis() / MILLIS_PER_MINUTE).clamp(1, Self::LAST.into()) as u32)
    }

    /// The lowest: with it as the floor, nothing lies below.
    pub const FIRST: Self = Self(1);

    /// It stands for itself alone, not for all that came before or comes after.
    pub(super) const fn is_exact(self) -> bool {
        Self::FIRST.0 < self.0 && self.0 < Self::LAST
    }

    /// Its first moment.
    pub fn start(self) -> Timestamp {
        Timestamp::from_millis(i64::from(self.0) * MILLIS_PER_MINUTE)
    }

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Stands for a segment in 6 bits: one of 63 tags, given out in turn, or none.
/// Segments may share a tag; an id counts as unstored while any segment with
/// its tag is unstored, which errs on the safe side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentTag(u8);

impl SegmentTag {
    /// No segment: ClickHouse has it.
    pub(super) const STORED: Self = Self(0);

    /// The tag of the segment with this ordinal.
    #[allow(clippy::cast_possible_truncation, reason = "less than 64")]
    pub const fn of(ordinal: u64) -> Self {
        Self(1 + (ordinal % 63) as u8)
    }
}

/// A set of segment tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTags(u64);

impl SegmentTags {
    pub(super) const fn contains(self, tag: SegmentTag) -> bool {
        self.0 & (1 << tag.0) != 0
    }
}

impl FromIterator<SegmentTag> for SegmentTags {
    fn from_iter<I: IntoIterator<Item = SegmentTag>>(tags: I) -> Self {
        Self(tags.into_iter().fold(0, |set, tag| set | 1 << tag.0))
    }
}

/// A minute and a segment tag in 32 bits: what an entry carries beside its
/// fingerprints.
#[derive(Clone, Copy)]
pub(super) struct Mark(pub(super) u32);

impl Mark {
    pub(super) const fn new(minute: Minute, tag: SegmentTag) -> Self {
        Self(minute.0 << 6 | tag.0 as u32)
    }

    pub(super) const fn minute(self) -> Minute {
        Minute(self.0 >> 6)
    }

    #[allow(clippy::cast_possible_truncation, reason = "6 bits")]
    pub(super) const fn tag(self) -> SegmentTag {
        SegmentTag((self.0 & 63) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_of_an_entry_keeps_minute_and_tag() {
        for minute in [1, 2, Minute::LAST] {
            for ordinal in 0..130 {
                let mark = Mark::new(Minute(minute), SegmentTag::of(ordinal));
                assert_eq!((mark.minute(), mark.tag()), (Minute(minute), SegmentTag::of(ordinal)));
                assert_ne!(mark.0, 0);
            }
        }
        assert_eq!(Minute::of(Timestamp::from_millis(-1)), Minute::FIRST);
        assert_eq!(Minute::of(Timestamp::from_millis(i64::MAX)), Minute(Minute::LAST));
    }
}
