//! What the figures are held to: one table. A bar is about a ratio of one run, or about something that hardly depends on the
//! machine.

use std::fmt::{self, Display, Formatter};

use crate::report::show;

/// Stored events from which the sizes and the memory of a service say something.
const MANY_STORED: f64 = 1_000_000.0;

/// The bars. When several of a figure apply, the last one counts.
const BARS: &[Bar] = &[
    Bar::at_least("ingest.ratio", 0.65),
    // Nine tenths of that with an id ledger of 100 million ids.
    Bar::at_least("ingest.ratio", 0.585).when("ledger.ids", 100_000_000.0),
    Bar::at_least("single.ratio", 100.0),
    Bar::at_least("single.grpc_ratio", 100.0),
    Bar::at_most("single.ack_p99_ratio", 1.0 / 100.0),
    Bar::at_most("single.grpc_ack_p99_ratio", 1.0 / 100.0),
    Bar::at_most("stats.cold_ratio", 1.0 / 20.0).when("stored_events", 7_000_000.0),
    Bar::at_most("stats.cached_ratio", 1.0 / 10.0),
    Bar::at_most("top.cold_ratio", 1.0 / 7.0).when("stored_events", 7_000_000.0),
    Bar::at_most("top.cold_ratio", 1.0 / 15.0).when("stored_events", 20_000_000.0),
    Bar::at_most("top.cached_ratio", 1.0 / 100.0),
    Bar::at_most("freshness_p99_ms", 1_000.0),
    Bar::at_most("late.scattered_freshness_p99_ms", 2_000.0),
    Bar::at_least("cliff.ratio", 0.8),
    Bar::at_least("cliff.dates_ratio", 0.8),
    Bar::at_most("start.ready_ms", 5_000.0),
    Bar::at_most("start.ready_after_kill_ms", 5_000.0),
    Bar::at_most("start.ready_ms_preloaded", 5_000.0),
    Bar::at_most("start.ready_after_kill_ms_preloaded", 5_000.0),
    Bar::at_most("ledger.memory_bytes_per_id", 3.0),
    Bar::at_most("ledger.disk_bytes_per_id", 18.0),
    Bar::at_most("service_rss_mb", 300.0).when("stored_events", MANY_STORED),
    Bar::at_most("bytes_per_event", 20.0).when("stored_events", MANY_STORED),
    Bar::at_most("bytes_per_event_with_rollups", 25.0).when("stored_events", MANY_STORED),
    Bar::at_least("deliveries.trial_ratio", 0.5),
    Bar::below("deliveries.hot_user_slowdown", 1.2),
    Bar::at_least("deliveries.redis_ratio", 0.5),
];

/// What a figure is held to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    figure: &'static str,
    bound: Bound,
    /// Another figure, and how much it must be at least: otherwise the bar does not apply.
    condition: Option<(&'static str, f64)>,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

/// The bar of a figure, which may depend on other figures of the run.
pub(crate) fn bar_of(figure: &str, value_of: impl Fn(&str) -> Option<f64>) -> Option<Bar> {
    let applies =
        |bar: &Bar| bar.condition.is_none_or(|(other, min)| value_of(other).is_some_and(|value| value >= min));
    BARS.iter().rev().find(|bar| bar.figure == figure && applies(bar)).copied()
}

impl Bar {
    const fn new(figure: &'static str, bound: Bound) -> Self {
        Self { figure, bound, condition: None }
    }

    const fn at_least(figure: &'static str, min: f64) -> Self {
        Self::new(figure, Bound::AtLeast(min))
    }

    const fn at_most(figure: &'static str, max: f64) -> Self {
        Self::new(figure, Bound::AtMost(max))
    }

    const fn below(figure: &'static str, end: f64) -> Self {
        Self::new(figure, Bound::Below(end))
    }

    /// Applies only if another figure is at least so much.
    const fn when(mut self, figure: &'static str, min: f64) -> Self {
        self.condition = Some((figure, min));
        self
    }

    /// Whether a value meets it. What could not be measured does not.
    pub(crate) fn is_met(&self, value: f64) -> bool {
        match self.bound {
            Bound::AtLeast(min) => value >= min,
            Bound::AtMost(max) => value <= max,
            Bound::Below(end) => value < end,
        }
    }
}

impl Display for Bar {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (sign, value) = match self.bound {
            Bound::AtLeast(min) => ("≥", min),
            Bound::AtMost(max) => ("≤", max),
            Bound::Below(end) => ("<", end),
        };
        write!(f, "{sign} {}", show(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_met_on_its_own_side() {
        let bar = |figure| bar_of(figure, |_| None).unwrap();
        let met = |figure, value| bar(figure).is_met(value);
        assert!(met("deliveries.trial_ratio", 0.5) && !met("deliveries.trial_ratio", 0.499));
        assert!(met("ledger.disk_bytes_per_id", 18.0) && !met("ledger.disk_bytes_per_id", 18.1));
        assert!(met("deliveries.hot_user_slowdown", 1.19) && !met("deliveries.hot_user_slowdown", 1.2));
        assert!(!met("cliff.ratio", f64::NAN) && !met("start.ready_ms", f64::NAN));
        assert_eq!(bar("cliff.ratio").to_string(), "≥ 0.8");
        assert_eq!(bar("start.ready_ms").to_string(), "≤ 5000");
    }

    #[test]
    fn the_last_bar_that_applies_counts() {
        let stored = |events: f64| {
            bar_of("top.cold_ratio", |name| (name == "stored_events").then_some(events)).map(|bar| bar.to_string())
        };
        assert_eq!(stored(6_999_999.0), None);
        assert_eq!(stored(7_000_000.0).as_deref(), Some("≤ 0.143"));
        assert_eq!(stored(20_000_000.0).as_deref(), Some("≤ 0.0667"));
        assert!(bar_of("unknown", |_| None).is_none());
    }
}
