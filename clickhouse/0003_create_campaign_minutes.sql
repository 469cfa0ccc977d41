-- Events per campaign, minute and type.
--
-- The day stands before the campaign: one campaign's day is a handful of granules, and the top campaigns of a window
-- read the days of that window only, not the whole month.
CREATE TABLE IF NOT EXISTS {database}.campaign_minutes
(
    org_id      LowCardinality(String),
    campaign_id String CODEC(ZSTD(1)),
    minute      DateTime('UTC') CODEC(Delta, ZSTD(1)),
    type        LowCardinality(String),
    events      UInt64 CODEC(T64, ZSTD(1))
)
ENGINE = SummingMergeTree(events)
PARTITION BY toYYYYMM(minute)
ORDER BY (org_id, toDate(minute), campaign_id, minute, type)
SETTINGS index_granularity = 1024, non_replicated_deduplication_window = 10000,
    fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS {database}.campaign_minutes_view TO {database}.campaign_minutes AS
SELECT org_id, campaign_id, toStartOfMinute(occurred_at) AS minute, type, toUInt64(count()) AS events
FROM {database}.events
WHERE campaign_id != ''
GROUP BY org_id, campaign_id, minute, type;
