//! Times as text, and as protobuf timestamps.

use crate::transport::rfc3339;

/// What was read can be written and read again; the same as text and as parts.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let read = rfc3339::parse(text);
        if read.is_some() {
            assert_eq!(rfc3339::parse_in_query(text), read);
            assert_eq!(rfc3339::parse_in_query(&text.replace('+', " ")), read);
        }
        if let Some(time) = rfc3339::parse_in_query(text) {
            assert_eq!(rfc3339::parse(&rfc3339::write(time)), Some(time));
            assert_eq!(rfc3339::parse(&rfc3339::write_millis(time)), Some(time));
            assert_eq!(rfc3339::parse(&rfc3339::write_micros(time.millis() * 1_000)), Some(time));
        }
    }
    let Some((seconds, rest)) = bytes.split_first_chunk::<8>() else { return };
    let Some((nanos, _)) = rest.split_first_chunk::<4>() else { return };
    let (seconds, nanos) = (i64::from_le_bytes(*seconds), i32::from_le_bytes(*nanos));
    assert!(rfc3339::parse(&rfc3339::write_micros(seconds)).is_some());
    if let Some(time) = rfc3339::from_parts(seconds, nanos) {
        assert_eq!(rfc3339::parse(&rfc3339::write(time)), Some(time));
        assert_eq!(time.millis().div_euclid(1_000), seconds);
    }
}

/// Times, near and far.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "2026-02-10T21:10:00Z",
        "2026-02-10t21:10:00.123456789z",
        "0000-01-01T00:00:00+00:00",
        "9999-12-31T23:59:60.999-23:59",
        "2024-02-29T00:00:00 05:30",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    for (seconds, nanos) in [(0_i64, 0_i32), (253_402_300_799, 999_999_999), (-62_167_219_200, 1), (i64::MAX, -1)] {
        seeds.push([seconds.to_le_bytes().as_slice(), nanos.to_le_bytes().as_slice()].concat());
    }
    seeds
}
