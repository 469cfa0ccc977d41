//! Checks whether ClickHouse's JSON functions can read a number.

/// What a number must be for ClickHouse to read it, in words.
pub(crate) const NUMBER_EXPECTED: &str = "must be a whole number from -9223372036854775808 to 18446744073709551615, \
     or one with a fraction or an exponent within ±1.7976931348623157e308; send others as text";

/// Whether ClickHouse reads this number, which is one of JSON's.
pub(super) fn is_readable(text: &str) -> bool {
    if text.contains(['.', 'e', 'E']) {
        return text.parse().is_ok_and(f64::is_finite);
    }
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_those_of_integers_of_64_bits_and_of_doubles() {
        for good in [
            "0",
            "-0",
            "18446744073709551615",
            "-9223372036854775808",
            "18446744073709551616.0",
            "1e308",
            "1.7976931348623157e308",
            "1e-400",
            "-1E+30",
        ] {
            assert!(is_readable(good), "{good}");
        }
        for bad in
            ["18446744073709551616", "-9223372036854775809", "1e309", "-1e309", "1.7976931348623159e308", "1e400"]
        {
            assert!(!is_readable(bad), "{bad}");
        }
        assert!(!is_readable(&"9".repeat(400)));
        assert!(!is_readable(&format!("{}.0", "9".repeat(400))));
    }
}
