//! The record of repairs: what was changed, by how much, and the state of the repair. Rows are only
//! added; the furthest state of a repair is valid.

use clickhouse::Row;
use serde::Deserialize;

use super::repairs::RepairKind;
use super::{AuditStore, Effort, HourScope, Repair};
use crate::clickhouse::client::quoted;
use crate::clickhouse::error::QueryError;
use crate::clickhouse::query_store::seconds;
use crate::clickhouse::ticket::QueryTicket;
use crate::domain::{AuditAuthor, Difference, RecordedRepair, RepairState, Rollup, RollupKey, Timestamp, Window};
use crate::event_row::put_string;
use crate::hour_versions::TouchedHours;

/// How far the clocks of two services may be apart, in microseconds.
const CLOCKS_APART_MICROS: u64 = 60_000_000;
/// Most repairs that are listed.
const LISTED_MAX: u32 = 1_000;

/// An entry in the record of repairs.
#[derive(Clone, Copy, Debug)]
pub struct RepairRecord<'a> {
    /// The repair.
    pub repair: Repair<'a>,
    /// Its state.
    pub state: RepairState,
    /// Its origin.
    pub author: AuditAuthor,
    /// Now, in microseconds since 1970.
    pub at_micros: u64,
}

/// The repairs of a rollup in an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RollupRepairs {
    /// How many are finished: done, undone or closed.
    pub over: u64,
    /// How many were undone.
    pub undone: u64,
    /// How many were begun and are not finished.
    pub open: u64,
}

#[derive(Row, Deserialize)]
struct RepairedHour {
    org_id: String,
    hour: u32,
}

#[derive(Row, Deserialize)]
struct RollupRow {
    name: String,
    over: u64,
    undone: u64,
    open: u64,
}

#[derive(Row, Deserialize)]
struct RepairRow {
    id: String,
    hour: u32,
    name: String,
    state: i8,
    begun_micros: i64,
    keys: u64,
    added: u64,
    taken: u64,
    author: String,
    undoes: String,
}

#[derive(Row, Deserialize)]
struct KeyRow {
    bucket: u32,
    campaign_id: String,
    event_type: String,
    user_id: String,
    user_key: u64,
    change: i64,
}

impl AuditStore {
    /// The repairs of an hour of one organization, by rollup.
    pub async fn repairs_of(
        &self,
        scope: HourScope<'_>,
        effort: Effort<'_>,
    ) -> Result<Vec<(Rollup, RollupRepairs)>, QueryError> {
        let statement = format!(
            "SELECT name, countIf(state >= 2) AS over, countIf(state = 3 OR state = 2 AND undoes != '') AS undone, \
               countIf(state = 1) AS open \
             FROM (SELECT toString(r.rollup) AS name, repair_id, max(toInt8(r.state)) AS state, any(r.undoes) AS undoes \
                   FROM audit_repairs AS r WHERE {} GROUP BY name, repair_id) GROUP BY name",
            scope.within("hour")
        );
        let rows: Vec<RollupRow> = self.read(&statement, scope.org_id, effort).fetch_all().await?;
        let of_row = |row: RollupRow| {
            let repairs = RollupRepairs { over: row.over, undone: row.undone, open: row.open };
            Some((Rollup::named(&row.name)?, repairs))
        };
        Ok(rows.into_iter().filter_map(of_row).collect())
    }

    /// The organizations with unfinished repairs of an hour.
    pub async fn open_repairs(&self, scope: HourScope<'_>, effort: Effort<'_>) -> Result<Vec<String>, QueryError> {
        let statement = format!(
            "SELECT DISTINCT org FROM (SELECT toString(r.org_id) AS org, repair_id FROM audit_repairs AS r WHERE {} \
             GROUP BY org, repair_id HAVING max(toInt8(state)) = 1)",
            scope.within("hour")
        );
        Ok(self.read(&statement, scope.org_id, effort).fetch_all().await?)
    }

    /// Closes the unfinished repairs of an hour of one organization, because the hour is right.
    pub async fn close_repairs(&self, org_id: &str, hour: Timestamp) -> Result<(), QueryError> {
        let statement = format!(
            "INSERT INTO audit_repairs (org_id, hour, rollup, repair_id, state, at, keys, added, taken, author, undoes) \
             SELECT r.org_id, r.hour, r.rollup, r.repair_id, 'closed', now64(6, 'UTC'), any(r.keys), any(r.added), \
               any(r.taken), any(r.author), any(r.undoes) \
             FROM audit_repairs AS r WHERE r.org_id = {} AND r.hour = toDateTime({}, 'UTC') \
             GROUP BY r.org_id, r.hour, r.rollup, r.repair_id HAVING max(toInt8(r.state)) = 1",
            quoted(org_id),
            seconds(hour)
        );
        Ok(self.client.query_raw(&statement).with_setting("async_insert", "0").execute().await?)
    }

    /// Adds an entry to the record of repairs.
    pub async fn record(&self, record: RepairRecord<'_>) -> Result<(), QueryError> {
        let repair = record.repair;
        let (added, taken) = repair.added_and_taken();
        let undoes = match repair.kind {
            RepairKind::Difference { .. } => "",
            RepairKind::Undo { repair_id } => repair_id,
        };
        let statement = format!(
            "INSERT INTO audit_repairs (org_id, hour, rollup, repair_id, state, at, keys, added, taken, author, undoes) \
             SELECT {{org:String}}, toDateTime({}, 'UTC'), '{}', '{}', '{}', \
               fromUnixTimestamp64Micro({}, 'UTC'), {}, {added}, {taken}, '{}', {}",
            seconds(repair.hour),
            repair.rollup.as_str(),
            repair.token(),
            record.state.as_str(),
            record.at_micros,
            repair.differences.len(),
            record.author.as_str(),
            quoted(undoes),
        );
        let insert = self.client.query_raw(&statement).param("org", repair.org_id).with_setting("async_insert", "0");
        Ok(insert.execute().await?)
    }

    /// Records the change of each key by a repair. Call this before the repair is applied.
    pub async fn record_keys(&self, repair: Repair<'_>) -> Result<(), QueryError> {
        let statement = "INSERT INTO audit_repair_keys (org_id, hour, rollup, repair_id, bucket, campaign_id, type, \
             user_id, user_key, change) FORMAT RowBinary";
        let (token, hour) = (repair.token(), seconds(repair.hour).to_le_bytes());
        let mut rows = Vec::with_capacity(repair.differences.len() * 128);
        for difference in repair.differences {
            let key = &difference.key;
            put_string(&mut rows, repair.org_id);
            rows.extend_from_slice(&hour);
            put_string(&mut rows, repair.rollup.as_str());
            put_string(&mut rows, &token);
            rows.extend_from_slice(&seconds(key.bucket).to_le_bytes());
            for text in [&key.campaign_id, &key.event_type, &key.user_id] {
                put_string(&mut rows, text);
            }
            rows.extend_from_slice(&key.user_key.to_le_bytes());
            rows.extend_from_slice(&repair.change(difference).to_le_bytes());
        }
        let mut insert = self.client.insert_formatted_with(statement);
        for (name, value) in [("async_insert", "0"), ("insert_deduplicate", "0"), ("wait_end_of_query", "1")] {
            insert = insert.with_setting(name, value);
        }
        insert.send(rows.into()).await?;
        Ok(insert.end().await?)
    }

    /// Records that a repair was undone.
    pub async fn record_undone(&self, org_id: &str, undone: &RecordedRepair, at_micros: u64) -> Result<(), QueryError> {
        let statement = format!(
            "INSERT INTO audit_repairs (org_id, hour, rollup, repair_id, state, at, keys, added, taken, author, undoes) \
             SELECT {}, toDateTime({}, 'UTC'), '{}', {}, 'undone', fromUnixTimestamp64Micro({at_micros}, 'UTC'), \
               {}, {}, {}, 'command', {}",
            quoted(org_id),
            seconds(undone.hour),
            undone.rollup.as_str(),
            quoted(&undone.id),
            undone.keys,
            undone.added,
            undone.taken,
            quoted(&undone.undoes),
        );
        Ok(self.client.query_raw(&statement).with_setting("async_insert", "0").execute().await?)
    }

    /// The repairs of an organization in these hours, the newest first.
    pub async fn recorded(
        &self,
        org_id: &str,
        window: Window,
        ticket: &QueryTicket,
    ) -> Result<Vec<RecordedRepair>, QueryError> {
        let (from, to) = (seconds(window.from()), seconds(window.to()));
        let within = format!("r.hour >= toDateTime({from}, 'UTC') AND r.hour < toDateTime({to}, 'UTC')");
        self.recorded_where(org_id, &within, ticket).await
    }

    /// A repair of an organization, and the one that undid it or began to.
    pub async fn recorded_with_undo(
        &self,
        org_id: &str,
        id: &str,
        ticket: &QueryTicket,
    ) -> Result<Vec<RecordedRepair>, QueryError> {
        let id = quoted(id);
        self.recorded_where(org_id, &format!("(r.repair_id = {id} OR r.undoes = {id})"), ticket).await
    }

    async fn recorded_where(
        &self,
        org_id: &str,
        which: &str,
        ticket: &QueryTicket,
    ) -> Result<Vec<RecordedRepair>, QueryError> {
        let statement = format!(
            "SELECT r.repair_id AS id, toUnixTimestamp(r.hour) AS hour, toString(r.rollup) AS name, \
               max(toInt8(r.state)) AS state, toUnixTimestamp64Micro(min(r.at)) AS begun_micros, any(r.keys) AS keys, \
               any(r.added) AS added, any(r.taken) AS taken, toString(argMin(r.author, r.at)) AS author, \
               any(r.undoes) AS undoes \
             FROM audit_repairs AS r WHERE r.org_id = {} AND {which} \
             GROUP BY r.repair_id, r.hour, r.rollup ORDER BY begun_micros DESC, id LIMIT {LISTED_MAX}",
            quoted(org_id)
        );
        let rows: Vec<RepairRow> = ticket.put_on(self.client.query_raw(&statement)).fetch_all().await?;
        rows.into_iter().map(RepairRow::into_domain).collect()
    }

    /// The change of each key by a repair.
    pub async fn recorded_keys(
        &self,
        org_id: &str,
        repair: &RecordedRepair,
        ticket: &QueryTicket,
    ) -> Result<Vec<(RollupKey, i64)>, QueryError> {
        let statement = format!(
            "SELECT toUnixTimestamp(bucket) AS bucket, campaign_id, toString(type) AS event_type, user_id, user_key, change \
             FROM audit_repair_keys FINAL \
             WHERE org_id = {} AND hour = toDateTime({}, 'UTC') AND rollup = '{}' AND repair_id = {}",
            quoted(org_id),
            seconds(repair.hour),
            repair.rollup.as_str(),
            quoted(&repair.id)
        );
        let rows: Vec<KeyRow> = ticket.put_on(self.client.query_raw(&statement)).fetch_all().await?;
        Ok(rows.into_iter().map(KeyRow::into_domain).collect())
    }

    /// Whether the audit has begun to repair one of these hours since a moment (in microseconds
    /// since 1970). It may have completed an earlier partial insert, which must then not be
    /// repeated under its token.
    pub async fn repaired_since(&self, hours: &TouchedHours, since_micros: u64) -> Result<bool, QueryError> {
        let since = since_micros.saturating_sub(CLOCKS_APART_MICROS);
        let statement = format!(
            "SELECT DISTINCT org_id, toUnixTimestamp(hour) AS hour FROM audit_repairs \
             WHERE at >= fromUnixTimestamp64Micro({since}, 'UTC')"
        );
        let repaired: Vec<RepairedHour> =
            QueryTicket::own().put_on(self.client.query_raw(&statement)).fetch_all().await?;
        let moment = |second: u32| Timestamp::from_millis(i64::from(second) * 1_000);
        Ok(repaired.iter().any(|row| hours.touches(Some(&row.org_id), moment(row.hour))))
    }
}

impl RepairRow {
    fn into_domain(self) -> Result<RecordedRepair, QueryError> {
        let unknown = || QueryError::Failed(format!("the record of the repair {} is of another version", self.id));
        Ok(RecordedRepair {
            rollup: Rollup::named(&self.name).ok_or_else(unknown)?,
            state: RepairState::of_number(self.state).ok_or_else(unknown)?,
            hour: Timestamp::from_millis(i64::from(self.hour) * 1_000),
            at: Timestamp::from_millis(self.begun_micros / 1_000),
            id: self.id,
            keys: self.keys,
            added: self.added,
            taken: self.taken,
            author: self.author,
            undoes: self.undoes,
        })
    }
}

impl KeyRow {
    fn into_domain(self) -> (RollupKey, i64) {
        let key = RollupKey {
            bucket: Timestamp::from_millis(i64::from(self.bucket) * 1_000),
            campaign_id: self.campaign_id,
            user_id: self.user_id,
            user_key: self.user_key,
            event_type: self.event_type,
        };
        (key, self.change)
    }
}

/// The differences whose repair reverts these changes.
pub(crate) fn opposite(changes: Vec<(RollupKey, i64)>) -> Vec<Difference> {
    let of_change = |(key, change)| Difference { key, expected: 0, actual: change, counted_twice: 0 };
    changes.into_iter().map(of_change).collect()
}
