-- What the audit has changed in the rollups. A repair is recorded as begun before its difference is inserted, and as
-- done once that is known to be there. A repair that stays begun may have been inserted or not; the next audit of its
-- hour tells.
CREATE TABLE IF NOT EXISTS {database}.audit_repairs
(
    org_id    LowCardinality(String),
    hour      DateTime('UTC'),
    rollup    LowCardinality(String),
    repair_id String,
    state     Enum8('begun' = 1, 'done' = 2),
    at        DateTime64(6, 'UTC'),
    -- Keys that were changed, events added to those that counted too few, and taken from those that counted too many.
    keys      UInt64,
    added     UInt64,
    taken     UInt64,
    -- 'background' or 'command'.
    author    LowCardinality(String)
)
ENGINE = MergeTree
ORDER BY (org_id, hour, rollup, at)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
