-- Do they come back? Users by the week (of seven days, from `from`) of their first event, and how many of them were active
-- in that week, one week later, and so on. The first week is week 0.
--
-- Reads one row per user and day. First means first since `from`.
WITH
    days AS
    (
        SELECT user_id, intDiv(day - {from:Date}, 7) AS week
        FROM user_days
        WHERE org_id = {org:String} AND day >= {from:Date} AND day < {from:Date} + 7 * {weeks:UInt8}
        GROUP BY user_id, week
    ),
    firsts AS
    (
        SELECT user_id, min(week) AS first_week
        FROM days
        GROUP BY user_id
    )
SELECT first_week, week - first_week AS weeks_later, count() AS users
FROM days
INNER JOIN firsts ON firsts.user_id = days.user_id
GROUP BY first_week, weeks_later
ORDER BY first_week, weeks_later;
