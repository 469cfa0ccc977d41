//! The most active users of a window: exact, without grouping all users by name.
//!
//! Two steps: first, from the rollup of user days, the [candidates] with the highest upper bounds of
//! their events in the window. Then, for the first of these only, the exact counts: whole hours from the
//! user days, the minutes at the two edges from the user minutes. If the last of the wanted users has more
//! events than the upper bound of every user that was not counted, the result is final. Otherwise more
//! candidates are counted, and then more are read. (The threshold idea of Fagin, Lotem and Naor, "Optimal
//! aggregation algorithms for middleware", 2001.)

mod candidates;
mod highest;
mod hours;
mod sums;

use std::collections::HashMap;
use std::fmt::Write as _;

use clickhouse::{Client, Row};
use serde::Deserialize;

use self::candidates::{Candidate, candidates};
use self::hours::{Days, edges, rows_of_runs, whole_hours};
use super::client::{long_query, quoted};
use super::error::QueryError;
use super::ticket::QueryTicket;
use crate::domain::{Limit, MILLIS_PER_HOUR, OrgId, Ranking, Timestamp, UserCount, Window};

/// Largest number of queries at a time; ClickHouse uses one thread for each.
pub const QUERIES_AT_A_TIME: u32 = 2;
/// Candidates of the first attempt, at least.
const CANDIDATES_MIN: usize = 1_000;
/// Candidates for each wanted user, in the first attempt.
const CANDIDATES_PER_USER: usize = 10;
/// Candidates for each wanted user that are counted at first, and then, at
/// most. (Three decide it where the upper bounds say nearly all; nine mostly,
/// where users have some dozens of events.)
const COUNTED_PER_USER: [usize; 2] = [3, 9];
/// Each further attempt takes so many times more.
const CANDIDATES_GROWTH: usize = 16;
/// Users that are named in a question, at most.
const NAMED_MAX: usize = 2_000;

#[derive(Row, Deserialize)]
struct UserRow {
    user_id: String,
    events: i64,
}

/// Ranks the users of a window in whole minutes; users with as many events, by their ids. Runs up
/// to this many queries at a time.
pub(super) async fn top_users(
    client: &Client,
    ticket: &QueryTicket,
    org_id: &OrgId,
    window: Window,
    limit: Limit,
    at_a_time: u32,
) -> Result<Ranking<UserCount>, QueryError> {
    let mut wanted = CANDIDATES_MIN.max(limit.get() as usize * CANDIDATES_PER_USER);
    loop {
        let found = candidates((client, ticket), org_id, window, wanted, at_a_time).await?;
        let unseen_upper = found.get(wanted - 1).map_or(0, |last| last.upper);
        let (mut users, mut counted) = (Ranking::new(), 0);
        for at_most in COUNTED_PER_USER.map(|counted| limit.get() as usize * counted).into_iter().chain([wanted]) {
            let more = contenders(&found, &users, limit).min(at_most).max(counted);
            users.extend(count((client, ticket), org_id, window, &found[counted..more]).await?);
            rank(&mut users, limit);
            counted = more;
            let others_upper = found.get(counted).map_or(unseen_upper, |next| next.upper);
            if is_decided(&users, limit, others_upper) {
                return Ok(users);
            }
        }
        wanted = wanted.saturating_mul(CANDIDATES_GROWTH);
    }
}

/// How many of the candidates, highest upper bound first, may be among the
/// first `limit`, since so many have been counted already.
fn contenders(candidates: &[Candidate], counted: &[UserCount], limit: Limit) -> usize {
    let last = counted.get(limit.get() as usize - 1);
    candidates.partition_point(|candidate| last.is_none_or(|last| candidate.upper >= last.events))
}

/// Whether these are the first, when nobody else has more than so many events.
fn is_decided(users: &[UserCount], limit: Limit, others_upper: u64) -> bool {
    // A user with as many events as the last might come first by id.
    let is_full = users.len() == limit.get() as usize;
    others_upper == 0 || (is_full && users.last().is_some_and(|last| last.events > others_upper))
}

/// The exact counts of the candidates.
async fn count(
    asking: (&Client, &QueryTicket),
    org_id: &OrgId,
    window: Window,
    candidates: &[Candidate],
) -> Result<Vec<UserCount>, QueryError> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    let keys = candidates.iter().fold(String::new(), |mut keys, candidate| {
        let comma = if keys.is_empty() { "" } else { "," };
        let _ = write!(keys, "{comma}{}", candidate.user_key); // Writing to a String cannot fail.
        keys
    });
    let mut counts: HashMap<String, i64> = fetch(asking, &in_whole_hours(org_id, &keys, window)).await?;
    let edges = edges(window);
    if !edges.is_empty() && !counts.is_empty() {
        for (user_id, events) in fetch(asking, &at_edges(org_id, &edges, counts.keys(), &keys, window)).await? {
            *counts.entry(user_id).or_default() += events;
        }
    }
    let counts = counts.into_iter();
    let users = counts.filter_map(|(user_id, events)| Some(UserCount { user_id, events: u64::try_from(events).ok()? }));
    Ok(users.filter(|user| user.events > 0).collect())
}

/// The first of these users, in their order.
fn rank(users: &mut Ranking<UserCount>, limit: Limit) {
    users.sort_unstable_by(|a, b| b.events.cmp(&a.events).then_with(|| a.user_id.cmp(&b.user_id)));
    users.truncate(limit.get() as usize);
}

/// The question for the events of users in the whole hours of a window; who
/// has none there is named too.
fn in_whole_hours(org_id: &OrgId, keys: &str, window: Window) -> String {
    let org = quoted(org_id.as_str());
    let rows = rows_of_runs(window, |run| {
        let (events, days) = (run.events_in(whole_hours(window)), run.condition());
        format!(
            "SELECT user_key, user_id, {events} AS events_of_row FROM user_days \
             WHERE org_id = {org} AND {days}"
        )
    });
    format!(
        "SELECT user_id, toInt64(sum(events_of_row)) AS events FROM ({rows}) \
         WHERE user_key IN ({keys}) GROUP BY user_id"
    )
}

/// The question for the events of users at the edges of a window: few users
/// are named, many are looked for by their keys.
fn at_edges<'a>(
    org_id: &OrgId,
    edges: &[Window],
    user_ids: impl ExactSizeIterator<Item = &'a String>,
    keys: &str,
    window: Window,
) -> String {
    let org = quoted(org_id.as_str());
    let edge = |edge: &Window| {
        format!(
            "(toStartOfHour(minute) = {} AND minute >= {} AND minute < {})",
            date_time(edge.from().floor_to(MILLIS_PER_HOUR)),
            date_time(edge.from()),
            date_time(edge.to())
        )
    };
    let edges: Vec<String> = edges.iter().map(edge).collect();
    let users = if user_ids.len() <= NAMED_MAX {
        user_ids.map(|user_id| quoted(user_id)).collect::<Vec<_>>().join(",")
    } else {
        let days = Days::all(window).condition();
        format!("SELECT user_id FROM user_days WHERE org_id = {org} AND {days} AND user_key IN ({keys})")
    };
    format!(
        "SELECT user_id, toInt64(sum(toInt32(events))) AS events FROM user_minutes \
         WHERE org_id = {org} AND ({}) AND user_id IN ({users}) GROUP BY user_id",
        edges.join(" OR ")
    )
}

/// Events by user.
async fn fetch((client, ticket): (&Client, &QueryTicket), statement: &str) -> Result<HashMap<String, i64>, QueryError> {
    let rows: Vec<UserRow> = ticket.put_on(long_query(client, statement)).fetch_all().await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.events)).collect())
}

/// A moment, as a constant of ClickHouse's.
fn date_time(moment: Timestamp) -> String {
    format!("toDateTime({}, 'UTC')", super::query_store::seconds(moment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit: u32) -> Limit {
        Limit::new("limit", limit, 1_000).unwrap()
    }

    #[test]
    fn who_has_too_few_events_is_no_contender() {
        let candidates = [9, 8, 8, 7, 5].map(|upper| Candidate { user_key: upper, upper });
        let counted = [8, 7].map(|events| UserCount { user_id: events.to_string(), events });
        assert_eq!(contenders(&candidates, &[], limit(1)), 5);
        assert_eq!(contenders(&candidates, &counted, limit(1)), 3); // As many events as the last: it may come before it.
        assert_eq!(contenders(&candidates, &counted, limit(2)), 4);
        assert_eq!(contenders(&candidates, &counted, limit(3)), 5); // Nobody is certain to be kept out.
    }

    #[test]
    fn it_is_decided_when_nobody_else_can_come_before_the_last() {
        let users = [5, 3].map(|events| UserCount { user_id: events.to_string(), events });
        assert!(is_decided(&users, limit(2), 2));
        assert!(!is_decided(&users, limit(2), 3));
        assert!(!is_decided(&users, limit(3), 2));
        assert!(is_decided(&users, limit(3), 0));
    }
}
