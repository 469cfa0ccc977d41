-- Write keys: what browsers and other people's libraries send instead of a token. A key may only send events of its
-- organization. Its text is kept nowhere: digest is its SHA-256 in hexadecimal. A later row of the same key replaces
-- the earlier.
--
-- version: the service's clock in microseconds, as in events.arrival.
CREATE TABLE IF NOT EXISTS {database}.write_keys
(
    org_id     LowCardinality(String),
    key_id     String,
    name       String,
    -- The first characters, by which people tell keys apart.
    prefix     String,
    digest     String,
    created_at DateTime64(3, 'UTC'),
    -- 1970: it has not been revoked.
    revoked_at DateTime64(3, 'UTC'),
    version    UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (org_id, key_id)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
