-- What the analysts of one organization read: made for each of them, in a database of its own.
--
-- No view says which organization it shows. Each reads the tables as {definer}, a user nobody can log in as, who has one row
-- policy: the rows of that organization, named as a constant. So nothing that a query says or sets has a part in it, and a
-- filter of the query, wherever ClickHouse evaluates it, is behind the policy.
-- The columns are those of {database}_analytics, so a query written for one runs in the other.
CREATE DATABASE IF NOT EXISTS {views};

CREATE OR REPLACE VIEW {views}.events DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, received_at, seq, properties, schema_version
FROM {database}.events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE OR REPLACE VIEW {views}.organizations DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, plan, unknown_event_types, created_at, updated_at
FROM {database}.organizations FINAL;

CREATE OR REPLACE VIEW {views}.users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, email, name, role, created_at, updated_at
FROM {database}.users FINAL;

CREATE OR REPLACE VIEW {views}.memberships DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, role, joined_at
FROM {database}.memberships FINAL;

CREATE OR REPLACE VIEW {views}.custom_metrics DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, date, value
FROM {database}.custom_metrics FINAL;

CREATE OR REPLACE VIEW {views}.event_types DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, type, version, schema, created_at
FROM {database}.event_types FINAL;

CREATE OR REPLACE VIEW {views}.type_hours DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, hour, type, sum(counts.events) AS events
FROM {database}.type_hours AS counts
GROUP BY org_id, hour, type
HAVING sum(counts.events) != 0;

CREATE OR REPLACE VIEW {views}.campaign_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, campaign_id, minute, type, sum(counts.events) AS events
FROM {database}.campaign_minutes AS counts
GROUP BY org_id, campaign_id, minute, type
HAVING sum(counts.events) != 0;

CREATE OR REPLACE VIEW {views}.user_days DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, day, user_id, toUInt64(sum(toInt32(counts.c00))) AS events
FROM {database}.user_days AS counts
GROUP BY org_id, day, user_id
HAVING sum(toInt32(counts.c00)) != 0;

CREATE OR REPLACE VIEW {views}.user_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, minute, user_id, toUInt64(sum(toInt32(counts.events))) AS events
FROM {database}.user_minutes AS counts
GROUP BY org_id, minute, user_id
HAVING sum(toInt32(counts.events)) != 0;
