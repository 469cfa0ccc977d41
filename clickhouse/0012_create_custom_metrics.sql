-- Figures that organizations bring themselves: one value per name and day. A later value replaces the earlier.
CREATE TABLE IF NOT EXISTS {database}.custom_metrics
(
    org_id  LowCardinality(String),
    name    LowCardinality(String),
    date    Date,
    value   Float64,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, name, date)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
