//! The keys at which a rollup differs from the events.
//!
//! For a key with surplus counts it also reads how many of its events are proven to have been counted
//! twice:
//!
//! - rows of `events` whose id an earlier row has: each was counted when it was inserted, and is visible
//!   until it is merged;
//! - events that the service inserted again without a token (`settled_events`), which the rollup may have
//!   counted the first time;
//! - minus what earlier repairs have removed.

use clickhouse::Row;
use serde::Deserialize;

use super::sums::in_minutes;
use super::{AuditStore, Effort, HourScope};
use crate::clickhouse::error::QueryError;
use crate::domain::{Difference, Differences, Rollup, RollupKey, Timestamp};

/// The columns of a key, whatever the rollup: campaign, type, user, the hash
/// of the user, and the bucket.
struct Columns {
    /// Of an event.
    of_event: String,
    /// Which events count.
    events: &'static str,
    /// Of a row of the rollup.
    of_row: String,
    /// The count of a row.
    count: String,
    /// Which rows.
    rows: String,
}

#[derive(Row, Deserialize)]
struct DifferenceRow {
    campaign_id: String,
    event_type: String,
    user_id: String,
    user_key: u64,
    bucket: u32,
    expected: i64,
    actual: i64,
    twice: i64,
    keys: u64,
    under: i64,
    over: i64,
    unproven: i64,
}

impl AuditStore {
    /// The keys of a rollup whose counts differ from the distinct ids, in an hour of one
    /// organization. The totals cover all keys; `limit` keys are listed, those with too low counts
    /// first. `buckets` are the ones that are known to differ.
    pub async fn differences(
        &self,
        rollup: Rollup,
        scope: HourScope<'_>,
        buckets: &[u32],
        limit: u32,
        effort: Effort<'_>,
    ) -> Result<Differences, QueryError> {
        let columns = columns(rollup, scope, buckets);
        let by_minute = matches!(rollup, Rollup::CampaignMinutes | Rollup::UserMinutes);
        let minutes = if by_minute { Some(buckets) } else { None };
        let events = events(scope, &columns, minutes);
        let twice = counted_twice(rollup, scope, &columns, minutes);
        let statement = format!(
            "SELECT campaign_id, event_type, user_id, user_key, bucket, expected, actual, twice, \
               count() OVER () AS keys, sum(greatest(expected - actual, 0)) OVER () AS under, \
               sum(greatest(actual - expected, 0)) OVER () AS over, \
               sum(greatest(actual - expected - twice, 0)) OVER () AS unproven \
             FROM (SELECT campaign_id, event_type, user_id, user_key, bucket, \
                     sum(e) AS expected, sum(a) AS actual, greatest(sum(t), 0) AS twice \
                   FROM ({events} UNION ALL SELECT {of_row}, toInt64(0) AS e, toInt64({count}) AS a, toInt64(0) AS t \
                         FROM {table} WHERE {rows} UNION ALL {twice}) \
                   GROUP BY campaign_id, event_type, user_id, user_key, bucket HAVING expected != actual) \
             ORDER BY expected < actual, bucket, campaign_id, event_type, user_id, user_key LIMIT {limit}",
            of_row = columns.of_row,
            count = columns.count,
            table = rollup.as_str(),
            rows = columns.rows,
        );
        let rows: Vec<DifferenceRow> = self.read(&statement, scope.org_id, effort).fetch_all().await?;
        let Some(DifferenceRow { keys, under, over, unproven, .. }) = rows.first() else {
            return Ok(Differences { rollup, keys: 0, under: 0, over: 0, unproven: 0, listed: Vec::new() });
        };
        let (keys, under, over, unproven) =
            (*keys, under.cast_unsigned(), over.cast_unsigned(), unproven.cast_unsigned());
        let listed = rows.into_iter().map(DifferenceRow::into_domain).collect();
        Ok(Differences { rollup, keys, under, over, unproven, listed })
    }
}

fn columns(rollup: Rollup, scope: HourScope<'_>, buckets: &[u32]) -> Columns {
    const MINUTE: &str = "toUnixTimestamp(toStartOfMinute(occurred_at)) AS bucket";
    let hour = format!("toUInt32({}) AS bucket", scope.second());
    let none = "'' AS campaign_id, '' AS event_type";
    match rollup {
        Rollup::CampaignMinutes => {
            let key = "toString(campaign_id) AS campaign_id, toString(type) AS event_type, \
                       '' AS user_id, toUInt64(0) AS user_key";
            Columns {
                of_event: format!("{key}, {MINUTE}"),
                events: "campaign_id != ''",
                of_row: format!("{key}, toUnixTimestamp(minute) AS bucket"),
                count: "events".to_owned(),
                rows: format!("{} AND {}", scope.campaign_minutes(), in_minutes("minute", buckets)),
            }
        }
        Rollup::TypeHours => {
            let key = "'' AS campaign_id, toString(type) AS event_type, '' AS user_id, toUInt64(0) AS user_key";
            Columns {
                of_event: format!("{key}, {hour}"),
                events: "1",
                of_row: format!("{key}, toUnixTimestamp(hour) AS bucket"),
                count: "events".to_owned(),
                rows: scope.within("hour"),
            }
        }
        Rollup::UserDays => Columns {
            of_event: format!("{none}, user_id, sipHash64(user_id) AS user_key, {hour}"),
            events: "user_id != ''",
            of_row: format!("{none}, user_id, user_key, {hour}"),
            count: scope.user_days_count(),
            rows: scope.user_days(),
        },
        Rollup::UserMinutes => Columns {
            of_event: format!("{none}, user_id, toUInt64(0) AS user_key, {MINUTE}"),
            events: "user_id != ''",
            of_row: format!("{none}, user_id, toUInt64(0) AS user_key, toUnixTimestamp(minute) AS bucket"),
            count: "toInt32(events)".to_owned(),
            rows: format!("{} AND {}", scope.user_minutes(), in_minutes("minute", buckets)),
        },
    }
}

/// The first row of each id, of the hour or of these minutes of it.
fn events(scope: HourScope<'_>, columns: &Columns, minutes: Option<&[u32]>) -> String {
    let minutes = minutes
        .map_or_else(String::new, |minutes| format!(" AND {}", in_minutes("toStartOfMinute(occurred_at)", minutes)));
    format!(
        "SELECT {}, toInt64(1) AS e, toInt64(0) AS a, toInt64(0) AS t FROM events FINAL WHERE {} AND {}{minutes}",
        columns.of_event,
        scope.events(),
        columns.events
    )
}

/// What shows that events were counted twice, see the module: a row for each
/// sign, and one for each key that a repair has changed.
fn counted_twice(rollup: Rollup, scope: HourScope<'_>, columns: &Columns, minutes: Option<&[u32]>) -> String {
    const ID: &str = "org_id, toStartOfMinute(occurred_at), event_id";
    let Columns { of_event, events: counts, .. } = columns;
    let (hour, table) = (scope.second(), rollup.as_str());
    let mut in_events = scope.events();
    if let Some(minutes) = minutes {
        in_events = format!("{in_events} AND {}", in_minutes("toStartOfMinute(occurred_at)", minutes));
    }
    let again = format!(
        "SELECT {of_event}, toInt64(0) AS e, toInt64(0) AS a, toInt64(1) AS t \
         FROM (SELECT campaign_id, type, user_id, occurred_at, \
                 row_number() OVER (PARTITION BY {ID} ORDER BY version DESC) AS nth \
               FROM events WHERE {in_events} \
                 AND ({ID}) IN (SELECT {ID} FROM events WHERE {in_events} GROUP BY {ID} HAVING count() > 1)) \
         WHERE nth > 1 AND {counts}"
    );
    let settled = format!(
        "SELECT {of_event}, toInt64(0) AS e, toInt64(0) AS a, toInt64(1) AS t FROM events FINAL \
         WHERE {in_events} AND {counts} \
           AND ({ID}) IN (SELECT org_id, minute, event_id FROM settled_events WHERE {})",
        scope.within("minute")
    );
    // What was taken away, less what of it was given back.
    let taken = format!(
        "SELECT campaign_id, toString(type) AS event_type, user_id, user_key, toUnixTimestamp(bucket) AS bucket, \
           toInt64(0) AS e, toInt64(0) AS a, change AS t \
         FROM audit_repair_keys FINAL \
         WHERE {org} hour = toDateTime({hour}, 'UTC') AND rollup = '{table}' AND repair_id IN ( \
           SELECT repair_id FROM audit_repairs WHERE {org} hour = toDateTime({hour}, 'UTC') AND rollup = '{table}' \
           GROUP BY repair_id HAVING max(toInt8(state)) >= 2) \
         AND (change < 0 OR repair_id IN (SELECT repair_id FROM audit_repairs \
           WHERE {org} hour = toDateTime({hour}, 'UTC') AND rollup = '{table}' AND undoes != ''))",
        org = scope.of_org(),
    );
    format!("{again} UNION ALL {settled} UNION ALL {taken}")
}

impl DifferenceRow {
    fn into_domain(self) -> Difference {
        Difference {
            key: RollupKey {
                bucket: Timestamp::from_millis(i64::from(self.bucket) * 1_000),
                campaign_id: self.campaign_id,
                user_id: self.user_id,
                user_key: self.user_key,
                event_type: self.event_type,
            },
            expected: self.expected,
            actual: self.actual,
            counted_twice: self.twice.cast_unsigned(),
        }
    }
}
