-- Periods whose events have passed the retention period and are deleted, or are about to be. The service refuses events of
-- these periods, so that an id that was deleted with its event is not counted again, and the audit repairs nothing there.
-- Rows are only added.
--
-- state: 'announced' before anything is deleted, so that every service on this database has refused new events of the period
-- by the time they go; 'deleted' from just before the deletion on.
CREATE TABLE IF NOT EXISTS {database}.deleted_periods
(
    -- The first moment of the period, and the moment after its last.
    starts_at      DateTime64(3, 'UTC'),
    ends_at        DateTime64(3, 'UTC'),
    state          Enum8('announced' = 1, 'deleted' = 2),
    at             DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC'),
    -- The setting that the events have passed.
    retention_days UInt32,
    -- 'retention': by the service. 'ttl': by the table's TTL, which versions before 0.2 used.
    cause          LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY (starts_at, ends_at, state, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
