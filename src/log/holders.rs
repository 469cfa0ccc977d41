//! Who needs the file of a segment.

/// Those who still need a segment's file once ClickHouse has its events. The file goes when nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holders(u8);

impl Holders {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// The id ledger, which does not have the segment's ids yet.
    pub const LEDGER: Self = Self(1);

    /// All of both.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// All but these.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether any of these is among them.
    pub const fn include(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }
}
