//! The candidates for the most active users of a window: those with the highest *upper bounds*, their
//! events in all hours that the window touches, which are not less than their events in the window.
//!
//! For one or two days the service [adds up](super::sums) the rows itself, by ranges of keys, so that it
//! never holds all users; this costs ClickHouse much less than grouping. For more days ClickHouse groups
//! the rows.

use std::ops::RangeInclusive;

use clickhouse::{Client, Row};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Deserialize;

use super::highest::Highest;
use super::hours::{Days, rows_of_runs};
use super::sums::Sums;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::ticket::QueryTicket;
use crate::domain::{MILLIS_PER_HOUR, OrgId, Window};

/// The keys of users are cut into so many ranges (as a power of two). With
/// fewer the service holds more users at a time; with more ClickHouse has more
/// questions to answer.
const RANGES_LOG2: u32 = 1;
/// Where a range has too many users, it is cut into so many (as a power of
/// two).
const RANGES_GROWTH_LOG2: u32 = 2;
/// More ranges than anybody has users for (as a power of two).
const RANGES_MAX_LOG2: u32 = 16;

/// A user's key, and how many events it may have in the window. (Of two users
/// who share a key, that is all of both; the exact counts will show it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Deserialize)]
pub(super) struct Candidate {
    pub(super) user_key: u64,
    pub(super) upper: u64,
}

/// The users with the highest upper bounds, highest first. Runs up to this many queries at a time.
pub(super) async fn candidates(
    asking: (&Client, &QueryTicket),
    org_id: &OrgId,
    window: Window,
    wanted: usize,
    at_a_time: u32,
) -> Result<Vec<Candidate>, QueryError> {
    if !Days::runs(window).into_iter().all(Days::is_one) {
        return grouped(asking, org_id, window, wanted).await;
    }
    for ranges_log2 in (RANGES_LOG2..RANGES_MAX_LOG2).step_by(RANGES_GROWTH_LOG2 as usize) {
        let mut highest = Highest::new(wanted);
        if added_up(asking, org_id, window, ranges_log2, at_a_time, &mut highest).await? {
            return Ok(highest.into_candidates());
        }
    }
    grouped(asking, org_id, window, wanted).await
}

/// Adds the users by so many ranges of keys. Not all of them, if there are too
/// many in a range.
async fn added_up(
    asking: (&Client, &QueryTicket),
    org_id: &OrgId,
    window: Window,
    ranges_log2: u32,
    at_a_time: u32,
    highest: &mut Highest,
) -> Result<bool, QueryError> {
    let sums = key_ranges(ranges_log2).map(|keys| sums(asking, org_id, window, keys));
    let mut sums = stream::iter(sums).buffer_unordered(at_a_time as usize);
    while let Some(sums) = sums.try_next().await? {
        let Some(sums) = sums else { return Ok(false) };
        sums.for_each(|user| highest.add(user));
    }
    Ok(true)
}

/// The sums of the users with these keys; none if there are too many.
async fn sums(
    asking: (&Client, &QueryTicket),
    org_id: &OrgId,
    window: Window,
    keys: RangeInclusive<u64>,
) -> Result<Option<Sums>, QueryError> {
    let rows = rows_of_runs(window, |run| {
        let (first, last) = (keys.start(), keys.end());
        format!("{} AND user_key BETWEEN {first} AND {last}", rows(window, run))
    });
    let (client, ticket) = asking;
    let query = ticket.put_on(client.query_raw(&rows)).param("org", org_id.as_str());
    // Another range is asked for beside it.
    Sums::read(query.with_setting("max_threads", "1")).await
}

/// All keys, in so many ranges. Keys are hashes, so each has as many users.
fn key_ranges(ranges_log2: u32) -> impl Iterator<Item = RangeInclusive<u64>> {
    let last = u64::MAX >> ranges_log2;
    (0..1_u64 << ranges_log2).map(move |range| {
        let first = range * last.wrapping_add(1);
        first..=first + last
    })
}

async fn grouped(
    (client, ticket): (&Client, &QueryTicket),
    org_id: &OrgId,
    window: Window,
    wanted: usize,
) -> Result<Vec<Candidate>, QueryError> {
    let rows = rows_of_runs(window, |run| rows(window, run));
    let statement = format!(
        "SELECT user_key, toUInt64(greatest(sum(upper_of_row), 0)) AS upper FROM ({rows}) \
         GROUP BY user_key HAVING upper > 0 ORDER BY upper DESC LIMIT {wanted}"
    );
    Ok(ticket.put_on(client.query_raw(&statement)).param("org", org_id.as_str()).fetch_all().await?)
}

/// The question for the rows of a run of days.
fn rows(window: Window, run: Days) -> String {
    let upper = run.events_in(Some(window.outwards_to(MILLIS_PER_HOUR)));
    let days = run.condition();
    format!("SELECT user_key, {upper} AS upper_of_row FROM user_days WHERE org_id = {{org:String}} AND {days}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_in_one_range() {
        for ranges_log2 in 0..RANGES_MAX_LOG2 {
            let ranges: Vec<_> = key_ranges(ranges_log2).collect();
            assert_eq!(ranges.len(), 1 << ranges_log2);
            assert_eq!((*ranges[0].start(), *ranges[ranges.len() - 1].end()), (0, u64::MAX));
            assert!(ranges.windows(2).all(|pair| pair[0].end() + 1 == *pair[1].start()), "{ranges:?}");
        }
    }
}
