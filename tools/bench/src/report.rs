//! What the benchmark found out, for people and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::bars::bar_of;

/// Figures by name, in the order in which they were measured.
#[derive(Default)]
pub(crate) struct Report {
    figures: Vec<(String, f64, &'static str)>,
}

impl Report {
    /// Adds a figure; a dot in its name separates a group from a name.
    pub(crate) fn add(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.push((name.to_owned(), value, unit));
    }

    /// Adds the middle and the tail of a distribution of times, in
    /// milliseconds.
    pub(crate) fn add_times(&mut self, name: &str, times: &Times) {
        for (suffix, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)] {
            self.add(&format!("{name}_{suffix}"), times.millis(quantile), "ms");
        }
    }

    /// As JSON: one flat object, names with dots.
    pub(crate) fn json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|(name, value, _)| (name.clone(), json!(round(*value)))).collect();
        Value::Object(figures)
    }

    /// As a table. A figure that is held to something says to what, and whether it is met.
    pub(crate) fn text(&self) -> String {
        let width = self.figures.iter().map(|(name, ..)| name.len()).max().unwrap_or_default();
        let line = |(name, value, unit): &(String, f64, &'static str)| {
            format!("{name:width$}  {:>14} {unit}{}\n", show(*value), self.verdict(name, *value))
        };
        self.figures.iter().map(line).collect()
    }

    fn verdict(&self, name: &str, value: f64) -> String {
        let Some(bar) = bar_of(name, |other| self.value(other)) else { return String::new() };
        format!("  [bar {bar}: {}]", if bar.is_met(value) { "met" } else { "MISSED" })
    }

    /// A figure that was added before.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        self.figures.iter().find(|(other, ..)| other == name).map(|(_, value, _)| *value)
    }
}

/// Three decimals are more than any of this is good for; below 1, three digits.
fn round(value: f64) -> f64 {
    let scale =
        if value.abs() < 1.0 && value != 0.0 { 10_f64.powf(2.0 - value.abs().log10().floor()) } else { 1_000.0 };
    (value * scale).round() / scale
}

/// A value for people.
pub(crate) fn show(value: f64) -> String {
    if value >= 1_000.0 { format!("{value:.0}") } else { round(value).to_string() }
}

/// The middle one of some values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A distribution of times, from a microsecond to a minute.
pub(crate) struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    pub(crate) fn new() -> Self {
        // The bounds and three digits are within what a histogram may have.
        let histogram = Histogram::new_with_bounds(1, 60_000_000, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("constant bounds")))
    }

    /// Adds one.
    pub(crate) fn add(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    /// Adds all of another.
    pub(crate) fn add_all(&mut self, other: &Self) {
        let _ = self.0.add(&other.0); // Both have the same bounds.
    }

    /// How many there are.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// Milliseconds at a quantile of 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "microseconds of a minute are exact")]
    pub(crate) fn millis(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_says_whether_its_bar_is_met() {
        let mut report = Report::default();
        report.add("cliff.ratio", 0.79, "× baseline");
        report.add("top.cold_ratio", 0.1, "× raw");
        report.add("stored_events", 7_000_000.0, "events");
        let lines: Vec<String> = report.text().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "cliff.ratio               0.79 × baseline  [bar ≥ 0.8: MISSED]");
        assert_eq!(lines[1], "top.cold_ratio             0.1 × raw  [bar ≤ 0.143: met]");
        assert_eq!(lines[2], "stored_events          7000000 events");
        assert_eq!(report.json(), json!({ "cliff.ratio": 0.79, "top.cold_ratio": 0.1, "stored_events": 7_000_000.0 }));
    }

    #[test]
    fn values_have_three_decimals_or_digits() {
        let shown = [12_345.678, 12.345_67, 0.123_456, 0.008_654_3, 0.0, -0.5].map(show);
        assert_eq!(shown, ["12346", "12.346", "0.123", "0.00865", "0", "-0.5"]);
    }
}
