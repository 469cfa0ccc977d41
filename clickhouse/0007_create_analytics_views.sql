-- What analysts read. Each view runs with the rights of {definer}, so a reader needs no right on the tables beneath,
-- and needs to know nothing of duplicates or of sums not yet merged.
-- Windows are [from, to), in whole minutes, UTC.

CREATE VIEW IF NOT EXISTS {database}_analytics.events DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT org_id, event_id, type, campaign_id, creative_id, source, user_id, occurred_at, received_at, seq, properties, schema_version
FROM {database}.events FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS {database}_analytics.events_of DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT event_id, type, campaign_id, creative_id, source, user_id, occurred_at, received_at, seq, properties, schema_version
FROM {database}.events FINAL
WHERE org_id = {org:String}
  AND toStartOfMinute(occurred_at) >= {from:DateTime('UTC')} AND toStartOfMinute(occurred_at) < {to:DateTime('UTC')}
SETTINGS do_not_merge_across_partitions_select_final = 1;

CREATE VIEW IF NOT EXISTS {database}_analytics.campaign_stats DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT minute, type, sum(events) AS events
FROM {database}.campaign_minutes
WHERE org_id = {org:String} AND campaign_id = {campaign:String}
  AND toDate(minute) BETWEEN toDate({from:DateTime('UTC')}) AND toDate({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY minute, type;

CREATE VIEW IF NOT EXISTS {database}_analytics.top_campaigns DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT campaign_id, sum(events) AS events
FROM {database}.campaign_minutes
WHERE org_id = {org:String}
  AND toDate(minute) BETWEEN toDate({from:DateTime('UTC')}) AND toDate({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY campaign_id
ORDER BY events DESC, campaign_id;

-- All users of the window, most active first: add LIMIT. Simple and exact; the service's own query is faster.
CREATE VIEW IF NOT EXISTS {database}_analytics.top_users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT user_id, sum(events) AS events
FROM {database}.user_minutes
WHERE org_id = {org:String}
  AND toStartOfHour(minute) BETWEEN toStartOfHour({from:DateTime('UTC')}) AND toStartOfHour({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY user_id
ORDER BY events DESC, user_id;

-- Whole UTC days, from and to inclusive.
CREATE VIEW IF NOT EXISTS {database}_analytics.daily_active_users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT day, uniqExact(user_id) AS users
FROM {database}.user_days
WHERE org_id = {org:String} AND day BETWEEN {from:Date} AND {to:Date}
GROUP BY day
ORDER BY day;

CREATE VIEW IF NOT EXISTS {database}_analytics.type_stats DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT hour, type, sum(events) AS events
FROM {database}.type_hours
WHERE org_id = {org:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY hour, type
ORDER BY hour, type;
