-- Every event, once. The columns up to `version` are written in this order by the service (RowBinary).
--
-- The sorting key is the identity of an event plus its minute. The minute is in front of the id because ids are
-- unique per organization but need not contain a time, and because all questions about events are windows of minutes.
--
-- First write wins: ReplacingMergeTree keeps the highest version, so version counts down as arrival counts up.
--
-- A look-up by key decompresses at least one block per id and column. With the defaults (8192 rows, 64 KiB) that is
-- 1 ms per id; granules of 512 rows in 16 KiB blocks halve that and cost 1 byte per event.
--
-- non_replicated_deduplication_window: how many insert tokens are remembered. The default is 0 (none).
--
-- fsync: the service deletes its own copy once an insert is answered.
CREATE TABLE IF NOT EXISTS {database}.events
(
    org_id         LowCardinality(String),
    event_id       String CODEC(ZSTD(1)),
    type           LowCardinality(String),
    campaign_id    LowCardinality(String) CODEC(ZSTD(1)),
    creative_id    LowCardinality(String) CODEC(ZSTD(1)),
    source         LowCardinality(String),
    user_id        String CODEC(ZSTD(1)),
    occurred_at    DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    seq            UInt64 CODEC(Delta, ZSTD(1)),
    properties     String CODEC(ZSTD(1)),
    schema_version UInt32 CODEC(ZSTD(1)),
    version        UInt64 CODEC(Delta, ZSTD(1)),
    -- Position in the order of arrival: a unique, increasing count of microseconds since 1970.
    arrival        UInt64 ALIAS 18446744073709551615 - version,
    received_at    DateTime64(6, 'UTC') ALIAS fromUnixTimestamp64Micro(toInt64(18446744073709551615 - version), 'UTC')
)
ENGINE = ReplacingMergeTree(version)
PARTITION BY toYYYYMM(occurred_at)
ORDER BY (org_id, toStartOfMinute(occurred_at), event_id)
SETTINGS index_granularity = 512, min_compress_block_size = 16384, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;
