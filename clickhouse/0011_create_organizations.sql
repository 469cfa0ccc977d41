-- Who uses the service: organizations, their users, and who belongs to what. Small tables that are written a row at a
-- time and read with FINAL; a later row of the same key replaces the earlier.
--
-- version: the service's clock in microseconds, as in events.arrival.
CREATE TABLE IF NOT EXISTS {database}.organizations
(
    org_id              String,
    name                String,
    plan                LowCardinality(String),
    -- What becomes of events of types that are not registered: 'accept' or 'reject'.
    unknown_event_types LowCardinality(String) DEFAULT 'accept',
    created_at          DateTime64(3, 'UTC'),
    updated_at          DateTime64(3, 'UTC'),
    version             UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY org_id
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- What an organization knows of its users. A user of two organizations has two rows, each seen by one of them only.
CREATE TABLE IF NOT EXISTS {database}.users
(
    org_id     LowCardinality(String),
    user_id    String,
    email      String,
    name       String,
    role       LowCardinality(String),
    created_at DateTime64(3, 'UTC'),
    updated_at DateTime64(3, 'UTC'),
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, user_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS {database}.memberships
(
    org_id    LowCardinality(String),
    user_id   String,
    role      LowCardinality(String),
    joined_at DateTime64(3, 'UTC'),
    version   UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, user_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
