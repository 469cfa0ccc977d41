//! The candidates for the most active users of a window: those with the
//! highest *upper bounds*, their events in all hours that the window touches,
//! which are not less than their events in the window. Each also has a *lower
//! bound*, the events in the hours that lie wholly within it.
//!
//! The rows of a day are in the order of their users' keys. So the rows of one
//! or two days are [merged](super::merge): nobody has to hold the sums of all
//! users, as ClickHouse does when it groups, which costs more than twice as
//! much. Of more days ClickHouse groups the rows.

use clickhouse::{Client, Row};
use serde::Deserialize;

use super::hours::{Days, rows_of_runs, whole_hours};
use super::merge::{KeyedRows, merge};
use crate::clickhouse::error::QueryError;
use crate::domain::{MILLIS_PER_HOUR, OrgId, Window};

/// A user's key, and between what bounds its events in the window are. (Two
/// users who share a key have bounds that are too high; the exact counts will
/// show it.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Row, Deserialize)]
pub(super) struct Candidate {
    pub(super) user_key: u64,
    pub(super) upper: u64,
    pub(super) lower: u64,
}

/// So many users with the highest upper bounds, highest first. A day is a
/// question; days that may not all be asked for at a time are grouped.
pub(super) async fn candidates(
    client: &Client,
    org_id: &OrgId,
    window: Window,
    wanted: usize,
    at_a_time: u32,
) -> Result<Vec<Candidate>, QueryError> {
    let runs = Days::runs(window);
    if runs.iter().all(|run| run.is_one()) && runs.len() <= at_a_time as usize {
        let rows = runs.into_iter().map(|day| rows_of_day(client, org_id, window, day)).collect::<Result<_, _>>()?;
        merge(rows, wanted).await
    } else {
        grouped(client, org_id, window, wanted).await
    }
}

/// The rows of a day, in the order of their keys.
fn rows_of_day(client: &Client, org_id: &OrgId, window: Window, day: Days) -> Result<KeyedRows, QueryError> {
    let rows = rows(window, day);
    let statement = format!("SELECT user_key, upper_of_row, lower_of_row FROM ({rows}) ORDER BY user_key");
    let query = client.query_raw(&statement).param("org", org_id.as_str());
    // As they lie: nothing is to be sorted.
    KeyedRows::read(query.with_setting("max_threads", "1").with_setting("optimize_read_in_order", "1"))
}

async fn grouped(client: &Client, org_id: &OrgId, window: Window, wanted: usize) -> Result<Vec<Candidate>, QueryError> {
    let rows = rows_of_runs(window, |run| rows(window, run));
    let statement = format!(
        "SELECT user_key, toUInt64(greatest(sum(upper_of_row), 0)) AS upper, \
           toUInt64(greatest(sum(lower_of_row), 0)) AS lower \
         FROM ({rows}) GROUP BY user_key HAVING upper > 0 ORDER BY upper DESC LIMIT {wanted}"
    );
    Ok(client.query_raw(&statement).param("org", org_id.as_str()).fetch_all().await?)
}

/// The question for the rows of a run of days.
fn rows(window: Window, run: Days) -> String {
    let upper = run.events_in(Some(window.outwards_to(MILLIS_PER_HOUR)));
    let lower = run.events_in(whole_hours(window));
    let days = run.condition();
    format!(
        "SELECT user_key, {upper} AS upper_of_row, {lower} AS lower_of_row \
         FROM user_days WHERE org_id = {{org:String}} AND {days}"
    )
}
