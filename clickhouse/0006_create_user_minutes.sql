-- Events per user and minute: what makes the edges of a window exact to the minute.
--
-- Read only for the users that user_days leaves in question, hence sorted by hour, then user.
CREATE TABLE IF NOT EXISTS {database}.user_minutes
(
    org_id  LowCardinality(String),
    minute  DateTime('UTC') CODEC(Delta, ZSTD(1)),
    user_id String CODEC(ZSTD(1)),
    events  UInt32 CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree(events)
PARTITION BY toYYYYMM(minute)
ORDER BY (org_id, toStartOfHour(minute), user_id, minute)
SETTINGS index_granularity = 512, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.user_minutes_view TO {database}.user_minutes AS
SELECT org_id, toStartOfMinute(occurred_at) AS minute, user_id, toUInt32(1) AS events
FROM {database}.events
WHERE user_id != '';
