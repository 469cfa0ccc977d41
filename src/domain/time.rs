//! Timestamps of the domain.

/// Milliseconds in a minute.
pub const MILLIS_PER_MINUTE: i64 = 60_000;
/// Milliseconds in an hour.
pub const MILLIS_PER_HOUR: i64 = 60 * MILLIS_PER_MINUTE;
/// Milliseconds in a day of UTC (leap seconds are not counted).
pub const MILLIS_PER_DAY: i64 = 24 * MILLIS_PER_HOUR;

/// A time in UTC: milliseconds since 1970-01-01T00:00:00Z, negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The time this many milliseconds after 1970-01-01T00:00:00Z.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The start of the bucket of `length` milliseconds that contains this time, counted from
    /// 1970-01-01T00:00:00Z.
    pub const fn floor_to(self, length: i64) -> Self {
        Self(self.0 - self.0.rem_euclid(length))
    }

    /// The first start of such a bucket that is not before this time.
    pub const fn ceil_to(self, length: i64) -> Self {
        let floor = self.floor_to(length).0;
        if floor == self.0 { self } else { Self(floor.saturating_add(length)) }
    }

    /// This time plus a number of milliseconds, saturating.
    pub const fn plus_millis(self, millis: i64) -> Self {
        Self(self.0.saturating_add(millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_goes_outwards_also_before_1970() {
        let check = |millis: i64, floor: i64, ceil: i64| {
            let moment = Timestamp::from_millis(millis);
            assert_eq!(moment.floor_to(MILLIS_PER_MINUTE).millis(), floor, "floor of {millis}");
            assert_eq!(moment.ceil_to(MILLIS_PER_MINUTE).millis(), ceil, "ceil of {millis}");
        };
        check(0, 0, 0);
        check(1, 0, 60_000);
        check(59_999, 0, 60_000);
        check(60_000, 60_000, 60_000);
        check(-1, -60_000, 0);
        check(-60_000, -60_000, -60_000);
    }
}
