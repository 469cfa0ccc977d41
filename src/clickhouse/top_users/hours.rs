//! Hours of a window in the rollup of user days.
//!
//! A row has a column for each hour of its day: `cNN` counts the events at or after hour NN, so a run of
//! hours is a difference of two columns. Which two depends on whether a day is the window's first, its
//! last, or in between.

use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, Timestamp, Window};

/// Days of which the same hours lie in a window: its first, its last, or all
/// in between. Counted from 1970-01-01, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days {
    first: i64,
    last: i64,
}

impl Days {
    /// All days that a window touches, whichever of their hours.
    pub(super) const fn all(window: Window) -> Self {
        Self { first: day(window.from()), last: day(window.to().plus_millis(-1)) }
    }

    /// The same in runs of which the same hours lie in the window: three at
    /// most.
    pub(super) fn runs(window: Window) -> Vec<Self> {
        let Self { first, last } = Self::all(window);
        let runs = match last - first {
            0 => vec![(first, first)],
            1 => vec![(first, first), (last, last)],
            _ => vec![(first, first), (first + 1, last - 1), (last, last)],
        };
        runs.into_iter().map(|(first, last)| Self { first, last }).collect()
    }

    /// Whether it is one day.
    pub(super) const fn is_one(self) -> bool {
        self.first == self.last
    }

    /// A condition for their rows.
    pub(super) fn condition(self) -> String {
        // As a `Date` can have it.
        let constant = |day: i64| format!("toDate({})", day.clamp(0, u16::MAX.into()));
        let (first, last) = (constant(self.first), constant(self.last));
        if self.is_one() { format!("day = {first}") } else { format!("day BETWEEN {first} AND {last}") }
    }

    /// A row's events in the hours of a window, which are whole; `None` is no
    /// hours. An `Int32`: a repair may have taken events away.
    pub(super) fn events_in(self, hours: Option<Window>) -> String {
        let begin = Timestamp::from_millis(self.first * MILLIS_PER_DAY);
        let end = begin.plus_millis(MILLIS_PER_DAY);
        let Some(hours) = hours.filter(|hours| hours.from() < end && hours.to() > begin) else {
            return "toInt32(0)".to_owned();
        };
        let column = |moment: Timestamp| format!("c{:02}", (moment.millis() - begin.millis()) / MILLIS_PER_HOUR);
        let from = column(hours.from().max(begin));
        // After the end of the day there is nothing to take away.
        let to = if hours.to() < end { column(hours.to()) } else { "0".to_owned() };
        format!("toInt32({from} - {to})")
    }
}

/// The rows of all days that a window touches, from the question for those of
/// each run.
pub(super) fn rows_of_runs(window: Window, rows: impl Fn(Days) -> String) -> String {
    Days::runs(window).into_iter().map(rows).collect::<Vec<_>>().join(" UNION ALL ")
}

/// The whole hours within the window, if there are any.
pub(super) fn whole_hours(window: Window) -> Option<Window> {
    Window::new(window.from().ceil_to(MILLIS_PER_HOUR), window.to().floor_to(MILLIS_PER_HOUR)).ok()
}

/// What is left of the window beside its whole hours: each within one hour.
pub(super) fn edges(window: Window) -> Vec<Window> {
    let (first_end, last_start) = (window.from().ceil_to(MILLIS_PER_HOUR), window.to().floor_to(MILLIS_PER_HOUR));
    let parts = if first_end > last_start {
        // It lies within one hour.
        vec![Window::new(window.from(), window.to())]
    } else {
        vec![Window::new(window.from(), first_end), Window::new(last_start, window.to())]
    };
    parts.into_iter().flatten().collect()
}

const fn day(moment: Timestamp) -> i64 {
    moment.millis().div_euclid(MILLIS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::MILLIS_PER_MINUTE;

    fn window(from_minute: i64, to_minute: i64) -> Window {
        let at = |minute: i64| Timestamp::from_millis(minute * MILLIS_PER_MINUTE);
        Window::new(at(from_minute), at(to_minute)).unwrap()
    }

    #[test]
    fn whole_hours_and_edges_make_up_the_window() {
        for from in 0..150 {
            for to in from + 1..200 {
                let window = window(from, to);
                let mut parts = edges(window);
                parts.extend(whole_hours(window));
                parts.sort_by_key(|part| part.from());
                assert_eq!((parts[0].from(), parts[parts.len() - 1].to()), (window.from(), window.to()));
                assert!(parts.windows(2).all(|pair| pair[0].to() == pair[1].from()), "{parts:?}");
                for edge in edges(window) {
                    assert_eq!(edge.buckets(MILLIS_PER_HOUR), 1, "{edge:?}");
                }
            }
        }
    }

    #[test]
    fn each_day_of_a_window_is_in_one_run() {
        for (from_hour, to_hour, expected) in [
            (3, 9, vec![(0, 0)]),
            (0, 24, vec![(0, 0)]),
            (23, 25, vec![(0, 0), (1, 1)]),
            (12, 60, vec![(0, 0), (1, 1), (2, 2)]),
            (0, 240, vec![(0, 0), (1, 8), (9, 9)]),
        ] {
            let runs: Vec<_> =
                Days::runs(window(from_hour * 60, to_hour * 60)).iter().map(|run| (run.first, run.last)).collect();
            assert_eq!(runs, expected, "{from_hour} to {to_hour}");
        }
    }

    #[test]
    fn a_run_of_hours_is_a_difference_of_columns() {
        let check = |hours: Option<(i64, i64)>, day: i64, expected: &str| {
            let hours = hours.map(|(from, to)| window(from * 60, to * 60));
            assert_eq!(Days { first: day, last: day }.events_in(hours), expected, "{hours:?}");
        };
        check(Some((3, 9)), 0, "toInt32(c03 - c09)");
        check(Some((3, 24)), 0, "toInt32(c03 - 0)");
        check(Some((23, 25)), 0, "toInt32(c23 - 0)");
        check(Some((23, 25)), 1, "toInt32(c00 - c01)");
        check(Some((0, 72)), 1, "toInt32(c00 - 0)");
        check(Some((24, 25)), 0, "toInt32(0)");
        check(Some((23, 24)), 1, "toInt32(0)");
        check(None, 0, "toInt32(0)");
    }
}
