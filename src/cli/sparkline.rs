//! Sparklines of block characters. Pure functions.

/// A bar's eighths, and a sparkline's eight heights.
const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// `value` as a bar of at most `width` characters, where `max` fills them all.
/// Drawn in eighths of a character; what is not nothing is never drawn as
/// nothing.
pub fn bar(value: u64, max: u64, width: usize) -> String {
    if value == 0 || max == 0 || width == 0 {
        return String::new();
    }
    let eighths = scale(value.min(max), max, width * 8).max(1);
    let mut text: String = std::iter::repeat_n('█', eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        text.push(EIGHTHS[eighths % 8 - 1]);
    }
    text
}

/// The values as a line of columns, the greatest of them full. Nothing is a
/// space.
pub fn sparkline(values: &[u64]) -> String {
    let max = values.iter().copied().max().unwrap_or(0);
    let column = |value: u64| if value == 0 { ' ' } else { HEIGHTS[scale(value, max, 8).max(1) - 1] };
    values.iter().copied().map(column).collect()
}

/// The values added up into at most `columns` stretches as equal as can be.
pub fn gather(values: &[u64], columns: usize) -> Vec<u64> {
    let columns = columns.min(values.len());
    (0..columns).map(|i| values[i * values.len() / columns..(i + 1) * values.len() / columns].iter().sum()).collect()
}

/// `value` of `max` in steps, rounded to the nearest. Both at least 1, and
/// `value` at most `max`.
fn scale(value: u64, max: u64, steps: usize) -> usize {
    let scaled = (u128::from(value) * steps as u128 + u128::from(max) / 2) / u128::from(max);
    usize::try_from(scaled).unwrap_or(steps)
}

/// A number with its thousands set apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Clicks per impression: `2.31 %`; nothing when there are no impressions.
pub fn click_rate(clicks: u64, impressions: u64) -> String {
    if impressions == 0 { String::new() } else { format!("{:.2} %", clicks as f64 * 100.0 / impressions as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_drawn_in_eighths() {
        let check = |value, max, width, expected: &str| assert_eq!(bar(value, max, width), expected, "{value}/{max}");
        check(0, 10, 4, "");
        check(10, 10, 4, "████");
        check(5, 10, 4, "██");
        check(1, 8, 1, "▏");
        check(7, 8, 1, "▉");
        check(3, 8, 2, "▊");
        check(9, 16, 2, "█▏");
        check(1, 1_000_000, 4, "▏");
        check(20, 10, 4, "████");
        check(5, 0, 4, "");
        check(5, 10, 0, "");
        check(u64::MAX, u64::MAX, 3, "███");
    }

    #[test]
    fn sparklines_reach_from_nothing_to_full() {
        assert_eq!(sparkline(&[]), "");
        assert_eq!(sparkline(&[0, 0]), "  ");
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[1, 1_000_000]), "▁█");
    }

    #[test]
    fn gathering_keeps_the_total() {
        assert_eq!(gather(&[1, 2, 3, 4], 2), [3, 7]);
        assert_eq!(gather(&[1, 2, 3], 10), [1, 2, 3]);
        assert_eq!(gather(&[], 10), [0; 0]);
        let values: Vec<u64> = (0..1_441).collect();
        assert_eq!(gather(&values, 60).iter().sum::<u64>(), values.iter().sum::<u64>());
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(click_rate(1, 0), "");
        assert_eq!(click_rate(231, 10_000), "2.31 %");
    }
}
