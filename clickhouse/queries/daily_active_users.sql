-- Different users per organization and UTC day, from `from` to `to`, both inclusive. Exact.
--
-- Reads one row per user and day, however many events a user has. Days without users are left out.
SELECT org_id, day, count() AS users
FROM user_days
WHERE day BETWEEN {from:Date} AND {to:Date}
GROUP BY org_id, day
ORDER BY org_id, day;
