//! Times within ids.
//!
//! UUIDs of version 7 (RFC 9562) and ULIDs begin with the millisecond of their creation. Such an id can
//! only be in a run that holds ids of about that time, so most new ones are looked up in no run: they are
//! newer than every stored id.

/// Most ranges of an [`IdTimes`]. Each takes 16 bytes.
const RANGES_MAX: usize = 4_096;
/// Times that are at most so far apart, in milliseconds, share a range.
const GAP_MILLIS_MAX: u64 = 10_000;

/// Characters of Crockford's base 32, in the order of their values. ULIDs are not case-sensitive by
/// their specification.
const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The time within an id, in milliseconds since 1970, where the id is a UUID of version 7 (in its
/// usual form of 36 characters) or a ULID. It depends on the id's text alone.
pub fn time_in_id(id: &str) -> Option<u64> {
    match id.len() {
        36 => time_in_uuid(id.as_bytes()),
        26 => time_in_ulid(id.as_bytes()),
        _ => None,
    }
}

fn time_in_uuid(id: &[u8]) -> Option<u64> {
    let is_of_version_7 = id[8] == b'-' && id[13] == b'-' && id[14] == b'7' && id[18] == b'-' && id[23] == b'-';
    if !is_of_version_7 {
        return None;
    }
    let digits = id[..8].iter().chain(&id[9..13]);
    let mut millis = 0;
    for digit in digits {
        millis = millis << 4 | u64::from(char::from(*digit).to_digit(16)?);
    }
    Some(millis)
}

fn time_in_ulid(id: &[u8]) -> Option<u64> {
    let value = |digit: &u8| CROCKFORD.iter().position(|known| *known == digit.to_ascii_uppercase());
    let mut millis = 0_u64;
    for (position, digit) in id.iter().enumerate() {
        let value = value(digit)?;
        if position < 10 {
            millis = millis << 5 | value as u64;
        }
    }
    // 48 bits: the first character is at most 7.
    (millis < 1 << 48).then_some(millis)
}

/// The times within some ids, as ranges that may cover more. At most 4,096 ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdTimes {
    /// First and last millisecond of each range, ascending, apart from each other.
    ranges: Vec<(u64, u64)>,
}

impl IdTimes {
    /// Adds a time.
    pub fn add(&mut self, millis: u64) {
        self.add_range(millis, millis);
    }

    /// Adds all of another's.
    pub fn add_all(&mut self, others: &Self) {
        for (first, last) in &others.ranges {
            self.add_range(*first, *last);
        }
    }

    /// Whether an id of this time may be among them.
    pub fn may_hold(&self, millis: u64) -> bool {
        let at = self.ranges.partition_point(|(first, _)| *first <= millis);
        at > 0 && millis <= self.ranges[at - 1].1
    }

    fn add_range(&mut self, first: u64, last: u64) {
        // From the first range that is not far before this one, to the last that is not far behind.
        let begin = self.ranges.partition_point(|(_, end)| end.saturating_add(GAP_MILLIS_MAX) < first);
        let end = self.ranges.partition_point(|(start, _)| *start <= last.saturating_add(GAP_MILLIS_MAX));
        if begin == end {
            self.ranges.insert(begin, (first, last));
        } else {
            let joined = (self.ranges[begin].0.min(first), self.ranges[end - 1].1.max(last));
            self.ranges.splice(begin..end, [joined]);
        }
        if self.ranges.len() > RANGES_MAX {
            // Coarser: neighbours share a range.
            self.ranges = self.ranges.chunks(2).map(|pair| (pair[0].0, pair[pair.len() - 1].1)).collect();
        }
    }

    pub(crate) fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Of ranges as [`IdTimes::ranges`] gives them; none where they are not in order.
    pub(crate) fn of_ranges(ranges: Vec<(u64, u64)>) -> Option<Self> {
        let is_in_order =
            ranges.iter().all(|(first, last)| first <= last) && ranges.windows(2).all(|pair| pair[0].1 < pair[1].0);
        is_in_order.then_some(Self { ranges })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_time_within_an_id_is_read_from_uuids_of_version_7_and_ulids_only() {
        let check = |id: &str, expected| assert_eq!(time_in_id(id), expected, "{id}");
        check("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", Some(0x017f_22e2_79b0));
        check("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", Some(0x017f_22e2_79b0));
        check("017f22e2-79b0-4cc3-98c4-dc0c0c07398f", None);
        check("017f22e2x79b0-7cc3-98c4-dc0c0c07398f", None);
        check("g17f22e2-79b0-7cc3-98c4-dc0c0c07398f", None);
        check("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(1_469_922_850_259));
        check("01arz3ndektsv4rrffq69g5fav", Some(1_469_922_850_259));
        check("81ARZ3NDEKTSV4RRFFQ69G5FAV", None);
        check("01ARZ3NDEKTSV4RRFFQ69G5FAU", None);
        check("e-1", None);
        check("", None);
        check("ä".repeat(13).as_str(), None);
        check("ä".repeat(18).as_str(), None);
    }

    proptest! {
        #[test]
        fn every_time_that_was_added_may_be_held(times in prop::collection::vec(0..1_u64 << 48, 0..9_000)) {
            let mut id_times = IdTimes::default();
            times.iter().for_each(|time| id_times.add(*time));
            prop_assert!(times.iter().all(|time| id_times.may_hold(*time)));
            prop_assert!(id_times.ranges().len() <= RANGES_MAX);
            prop_assert_eq!(IdTimes::of_ranges(id_times.ranges().to_vec()), Some(id_times));
        }

        #[test]
        fn times_far_from_all_that_were_added_are_not_held(times in prop::collection::vec(0..1_000_u64, 1..100)) {
            let mut id_times = IdTimes::default();
            times.iter().for_each(|time| id_times.add(time * 100_000));
            for far in (0..1_000).map(|time| time * 100_000 + 50_000) {
                prop_assert!(!id_times.may_hold(far));
            }
            let mut joined = IdTimes::default();
            joined.add_all(&id_times);
            prop_assert_eq!(joined, id_times);
        }
    }
}
