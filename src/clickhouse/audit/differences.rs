//! The keys at which a rollup differs from the events.

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
    keys: u64,
    under: i64,
    over: i64,
}

impl AuditStore {
    /// The keys of a rollup whose counts are not those of the distinct ids, in
    /// an hour of one organisation. The numbers are of all keys; `limit` keys
    /// are listed. `buckets` are the ones that are known to differ.
    pub async fn differences(
        &self,
        rollup: Rollup,
        scope: HourScope<'_>,
        buckets: &[u32],
        limit: u32,
        effort: Effort,
    ) -> Result<Differences, QueryError> {
        let columns = columns(rollup, scope, buckets);
        let by_minute = matches!(rollup, Rollup::CampaignMinutes | Rollup::UserMinutes);
        let events = events(scope, &columns, if by_minute { Some(buckets) } else { None });
        let statement = format!(
            "SELECT campaign_id, event_type, user_id, user_key, bucket, expected, actual, \
               count() OVER () AS keys, sum(greatest(expected - actual, 0)) OVER () AS under, \
               sum(greatest(actual - expected, 0)) OVER () AS over \
             FROM (SELECT campaign_id, event_type, user_id, user_key, bucket, \
                     sum(e) AS expected, sum(a) AS actual \
                   FROM ({events} UNION ALL SELECT {of_row}, toInt64(0) AS e, toInt64({count}) AS a \
                         FROM {table} WHERE {rows}) \
                   GROUP BY campaign_id, event_type, user_id, user_key, bucket HAVING expected != actual) \
             ORDER BY bucket, campaign_id, event_type, user_id, user_key LIMIT {limit}",
            of_row = columns.of_row,
            count = columns.count,
            table = rollup.as_str(),
            rows = columns.rows,
        );
        let rows: Vec<DifferenceRow> = self.read(&statement, scope.org_id, effort).fetch_all().await?;
        let (keys, under, over) = rows.first().map_or((0, 0, 0), |row| (row.keys, row.under, row.over));
        let listed = rows.into_iter().map(DifferenceRow::into_domain).collect();
        Ok(Differences { rollup, keys, under: under.cast_unsigned(), over: over.cast_unsigned(), listed })
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
        "SELECT {}, toInt64(1) AS e, toInt64(0) AS a FROM events FINAL WHERE {} AND {}{minutes}",
        columns.of_event,
        scope.events(),
        columns.events
    )
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
        }
    }
}
