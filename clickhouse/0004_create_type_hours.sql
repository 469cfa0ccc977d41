-- Events per organization, hour and type.
CREATE TABLE IF NOT EXISTS {database}.type_hours
(
    org_id LowCardinality(String),
    hour   DateTime('UTC') CODEC(Delta, ZSTD(1)),
    type   LowCardinality(String),
    events UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree(events)
PARTITION BY toYYYYMM(hour)
ORDER BY (org_id, hour, type)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.type_hours_view TO {database}.type_hours AS
SELECT org_id, toStartOfHour(occurred_at) AS hour, type, toUInt64(count()) AS events
FROM {database}.events
GROUP BY org_id, hour, type;
