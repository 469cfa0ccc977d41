-- Every version of every registered event type. Versions are added and never changed; events.schema_version names the
-- one an event was checked against (0: none).
CREATE TABLE IF NOT EXISTS {database}.event_types
(
    org_id     LowCardinality(String),
    type       LowCardinality(String),
    version    UInt32,
    -- The JSON Schema of `properties`; empty: anything.
    schema     String CODEC(ZSTD(1)),
    created_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(created_at)
ORDER BY (org_id, type, version)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
