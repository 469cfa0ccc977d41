//! The share of a resource that one tenant can hold.

/// A tenant below this part of the whole (as a divisor) counts as a newcomer
/// where holdings are counted in many small units.
const NEWCOMER_DIVISOR: u64 = 100;

/// The rules by which a resource of a fixed size is shared.
///
/// - No tenant holds more than its share.
/// - A reserve is kept free for tenants that hold nothing or next to nothing,
///   so that a few tenants with full shares cannot keep out all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    total: u64,
    tenant_max: u64,
    reserve: u64,
    /// Tenants that hold less than this may use the reserve.
    newcomer_below: u64,
}

impl Shares {
    /// Shares `total` units, of which one tenant may hold up to
    /// `share_percent` percent (from 1 to 100), and at least one unit. Half of
    /// what such a tenant leaves is kept for tenants that hold nothing.
    pub const fn new(total: u64, share_percent: u32) -> Self {
        let percent = if share_percent > 100 { 100 } else { share_percent as u64 };
        let share = percent_of(total, percent);
        let tenant_max = if share == 0 { 1 } else { share };
        let reserve = total.saturating_sub(tenant_max) / 2;
        Self { total, tenant_max, reserve, newcomer_below: 1 }
    }

    /// Shares `total` units, of which a tenant may hold one.
    pub const fn one_each(total: u64) -> Self {
        Self { total, tenant_max: 1, reserve: 0, newcomer_below: 1 }
    }

    /// The same for what is held in many small units, such as bytes on disk: a
    /// tenant that holds less than a hundredth of the whole may use the
    /// reserve.
    #[must_use]
    pub const fn in_small_units(self) -> Self {
        let below = self.total / NEWCOMER_DIVISOR;
        Self { newcomer_below: if below == 0 { 1 } else { below }, ..self }
    }

    /// Units in all.
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Most units that one tenant may hold.
    pub const fn tenant_max(&self) -> u64 {
        self.tenant_max
    }

    /// Whether a tenant that holds `held` may hold `wanted` more by its own
    /// share, whatever others hold.
    pub const fn is_within_share(&self, held: u64, wanted: u64) -> bool {
        held.saturating_add(wanted) <= self.tenant_max
    }

    /// Whether a tenant that holds `held` may hold `wanted` more now that all
    /// tenants together hold `taken`.
    pub const fn allows(&self, taken: u64, held: u64, wanted: u64) -> bool {
        let free = self.total.saturating_sub(taken);
        let left_free = if held < self.newcomer_below { 0 } else { self.reserve };
        self.is_within_share(held, wanted) && wanted.saturating_add(left_free) <= free
    }
}

/// Without overflow for numbers of bytes.
const fn percent_of(total: u64, percent: u64) -> u64 {
    (total / 100) * percent + (total % 100) * percent / 100
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn half_may_be_held_by_one_and_a_quarter_is_kept_for_newcomers() {
        let shares = Shares::new(32, 50);
        assert_eq!(shares.tenant_max(), 16);
        assert!(shares.allows(0, 0, 16) && !shares.allows(0, 0, 17) && !shares.allows(16, 16, 1));
        // 8 are left: only who holds nothing may have them.
        assert!(shares.allows(23, 7, 1) && !shares.allows(24, 8, 1) && shares.allows(24, 0, 1));
        assert!(shares.allows(31, 0, 1) && !shares.allows(32, 0, 1));
    }

    #[test]
    fn what_cannot_be_divided_is_one_at_a_time() {
        let shares = Shares::new(1, 50);
        assert!(shares.allows(0, 0, 1) && !shares.allows(1, 0, 1));
        let shares = Shares::one_each(2);
        assert!(shares.allows(1, 0, 1) && !shares.allows(1, 1, 1) && !shares.allows(2, 0, 1));
        let all = Shares::new(10, 100);
        assert!(all.allows(9, 9, 1));
    }

    #[test]
    fn small_holdings_may_use_the_reserve() {
        let shares = Shares::new(1_000, 50).in_small_units();
        assert!(shares.allows(900, 9, 1) && !shares.allows(900, 10, 1));
    }

    proptest! {
        /// Where others hold nothing, a tenant always gets its whole share.
        #[test]
        fn a_tenant_alone_gets_its_share(total in 1..2_000_u64, percent in 1..=100_u32, held in 0..2_000_u64) {
            let shares = Shares::new(total, percent);
            let held = held.min(shares.tenant_max());
            prop_assert!(shares.allows(held, held, shares.tenant_max() - held));
            prop_assert!(shares.tenant_max() <= total.max(1));
        }
    }
}
