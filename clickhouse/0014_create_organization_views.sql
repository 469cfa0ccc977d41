-- What analysts read beside the events: in {database}_analytics of all organizations, in {database}_org of one only.
--
-- {database}_org is for the analysts of one organization. Its views show the rows of the organization that the reader's
-- settings profile names as log_comment (which readers cannot change, see docs/security.md), and none without it. The
-- columns are the same in both databases, so a query written for one runs in the other.
CREATE DATABASE IF NOT EXISTS {database}_org;

-- Each event once.
CREATE OR REPLACE VIEW {database}_org.events DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, received_at, seq, properties, schema_version
FROM {database}.events FINAL
WHERE org_id = getSetting('log_comment')
SETTINGS do_not_merge_across_partitions_select_final = 1;

-- Organizations that are registered.
CREATE OR REPLACE VIEW {database}_analytics.organizations DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, plan, unknown_event_types, created_at, updated_at
FROM {database}.organizations FINAL;

CREATE OR REPLACE VIEW {database}_org.organizations DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, plan, unknown_event_types, created_at, updated_at
FROM {database}.organizations FINAL
WHERE org_id = getSetting('log_comment');

-- What organizations know of their users.
CREATE OR REPLACE VIEW {database}_analytics.users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, email, name, role, created_at, updated_at
FROM {database}.users FINAL;

CREATE OR REPLACE VIEW {database}_org.users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, email, name, role, created_at, updated_at
FROM {database}.users FINAL
WHERE org_id = getSetting('log_comment');

-- Who belongs to which organization.
CREATE OR REPLACE VIEW {database}_analytics.memberships DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, role, joined_at
FROM {database}.memberships FINAL;

CREATE OR REPLACE VIEW {database}_org.memberships DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, user_id, role, joined_at
FROM {database}.memberships FINAL
WHERE org_id = getSetting('log_comment');

-- Organizations' own figures, one value per name and day.
CREATE OR REPLACE VIEW {database}_analytics.custom_metrics DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, date, value
FROM {database}.custom_metrics FINAL;

CREATE OR REPLACE VIEW {database}_org.custom_metrics DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, name, date, value
FROM {database}.custom_metrics FINAL
WHERE org_id = getSetting('log_comment');

-- Every version of every registered event type.
CREATE OR REPLACE VIEW {database}_analytics.event_types DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, type, version, schema, created_at
FROM {database}.event_types FINAL;

CREATE OR REPLACE VIEW {database}_org.event_types DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, type, version, schema, created_at
FROM {database}.event_types FINAL
WHERE org_id = getSetting('log_comment');

-- Events per hour and type: cheap, whatever the number of events.
CREATE OR REPLACE VIEW {database}_analytics.type_hours DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, hour, type, sum(counts.events) AS events
FROM {database}.type_hours AS counts
GROUP BY org_id, hour, type
HAVING sum(counts.events) != 0;

CREATE OR REPLACE VIEW {database}_org.type_hours DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, hour, type, sum(counts.events) AS events
FROM {database}.type_hours AS counts
WHERE org_id = getSetting('log_comment')
GROUP BY org_id, hour, type
HAVING sum(counts.events) != 0;

-- Events per campaign, minute and type.
CREATE OR REPLACE VIEW {database}_analytics.campaign_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, campaign_id, minute, type, sum(counts.events) AS events
FROM {database}.campaign_minutes AS counts
GROUP BY org_id, campaign_id, minute, type
HAVING sum(counts.events) != 0;

CREATE OR REPLACE VIEW {database}_org.campaign_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, campaign_id, minute, type, sum(counts.events) AS events
FROM {database}.campaign_minutes AS counts
WHERE org_id = getSetting('log_comment')
GROUP BY org_id, campaign_id, minute, type
HAVING sum(counts.events) != 0;

-- Events per user and UTC day: who was active, and how much.
CREATE OR REPLACE VIEW {database}_analytics.user_days DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, day, user_id, toUInt64(sum(toInt32(counts.c00))) AS events
FROM {database}.user_days AS counts
GROUP BY org_id, day, user_id
HAVING sum(toInt32(counts.c00)) != 0;

CREATE OR REPLACE VIEW {database}_org.user_days DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, day, user_id, toUInt64(sum(toInt32(counts.c00))) AS events
FROM {database}.user_days AS counts
WHERE org_id = getSetting('log_comment')
GROUP BY org_id, day, user_id
HAVING sum(toInt32(counts.c00)) != 0;

-- Events per user and minute.
CREATE OR REPLACE VIEW {database}_analytics.user_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, minute, user_id, toUInt64(sum(toInt32(counts.events))) AS events
FROM {database}.user_minutes AS counts
GROUP BY org_id, minute, user_id
HAVING sum(toInt32(counts.events)) != 0;

CREATE OR REPLACE VIEW {database}_org.user_minutes DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, minute, user_id, toUInt64(sum(toInt32(counts.events))) AS events
FROM {database}.user_minutes AS counts
WHERE org_id = getSetting('log_comment')
GROUP BY org_id, minute, user_id
HAVING sum(toInt32(counts.events)) != 0;
