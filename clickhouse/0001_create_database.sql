-- The service's own tables, and beside them the analysts' views: a reader can be granted the second database alone.
CREATE DATABASE IF NOT EXISTS {database};

CREATE DATABASE IF NOT EXISTS {database}_analytics;

-- Which of these files have been applied.
CREATE TABLE IF NOT EXISTS {database}.schema_migrations
(
    name       String,
    applied_at DateTime('UTC') DEFAULT now('UTC')
)
ENGINE = MergeTree
ORDER BY name;
