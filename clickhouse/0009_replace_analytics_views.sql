-- The audit repairs a rollup by adding the difference, which may be negative. A negative number is kept in an unsigned
-- column as its complement. Sums of UInt64 wrap around, and so are right. Sums of UInt32 are UInt64, which do not: these
-- counts are read as signed (toInt32). What has come to nothing is left out, whether or not it has been merged away.
CREATE OR REPLACE VIEW {database}_analytics.campaign_stats DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT minute, type, sum(counts.events) AS events
FROM {database}.campaign_minutes AS counts
WHERE org_id = {org:String} AND campaign_id = {campaign:String}
  AND toDate(minute) BETWEEN toDate({from:DateTime('UTC')}) AND toDate({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY minute, type
HAVING sum(counts.events) != 0;

CREATE OR REPLACE VIEW {database}_analytics.top_campaigns DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT campaign_id, sum(counts.events) AS events
FROM {database}.campaign_minutes AS counts
WHERE org_id = {org:String}
  AND toDate(minute) BETWEEN toDate({from:DateTime('UTC')}) AND toDate({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY campaign_id
HAVING sum(counts.events) != 0
ORDER BY events DESC, campaign_id;

-- All users of the window, most active first: add LIMIT. Simple and exact; the service's own query is faster.
CREATE OR REPLACE VIEW {database}_analytics.top_users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT user_id, toUInt64(sum(toInt32(counts.events))) AS events
FROM {database}.user_minutes AS counts
WHERE org_id = {org:String}
  AND toStartOfHour(minute) BETWEEN toStartOfHour({from:DateTime('UTC')}) AND toStartOfHour({to:DateTime('UTC')})
  AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
GROUP BY user_id
HAVING sum(toInt32(counts.events)) != 0
ORDER BY events DESC, user_id;

-- Whole UTC days, from and to inclusive.
CREATE OR REPLACE VIEW {database}_analytics.daily_active_users DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT day, count() AS users
FROM
(
    SELECT day, user_key, user_id
    FROM {database}.user_days
    WHERE org_id = {org:String} AND day BETWEEN {from:Date} AND {to:Date}
    GROUP BY day, user_key, user_id
    HAVING sum(toInt32(c00)) != 0
)
GROUP BY day
ORDER BY day;

CREATE OR REPLACE VIEW {database}_analytics.type_stats DEFINER = {definer} SQL SECURITY DEFINER AS
SELECT hour, type, sum(counts.events) AS events
FROM {database}.type_hours AS counts
WHERE org_id = {org:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY hour, type
HAVING sum(counts.events) != 0
ORDER BY hour, type;
