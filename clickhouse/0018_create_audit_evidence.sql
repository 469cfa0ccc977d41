-- What a repair can be taken back by, what shows that an event was counted twice, and which hours wait for an audit.

-- 'undone': it was taken back, by the repair whose `undoes` names it. 'closed': it was begun, the hour was found right
-- afterwards, and whether by this repair is not known.
ALTER TABLE {database}.audit_repairs
    MODIFY COLUMN state Enum8('begun' = 1, 'done' = 2, 'undone' = 3, 'closed' = 4),
    ADD COLUMN IF NOT EXISTS undoes String DEFAULT '' AFTER author;

-- By what a repair changes each key. Written before the change is made.
CREATE TABLE IF NOT EXISTS {database}.audit_repair_keys
(
    org_id      LowCardinality(String),
    hour        DateTime('UTC'),
    rollup      LowCardinality(String),
    repair_id   String,
    bucket      DateTime('UTC'),
    campaign_id String CODEC(ZSTD(1)),
    type        LowCardinality(String),
    user_id     String CODEC(ZSTD(1)),
    user_key    UInt64,
    change      Int64
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, hour, rollup, repair_id, bucket, campaign_id, type, user_id, user_key)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Events that were inserted a second time without a token, since `events` did not have them. A rollup may have had them
-- from the first time.
CREATE TABLE IF NOT EXISTS {database}.settled_events
(
    org_id   LowCardinality(String),
    minute   DateTime('UTC'),
    event_id String CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
ORDER BY (org_id, minute, event_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Hours that wait for an audit in the background. The row with the highest version counts.
CREATE TABLE IF NOT EXISTS {database}.audit_due
(
    hour    DateTime('UTC'),
    is_due  UInt8,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY hour
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
