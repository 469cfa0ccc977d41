-- An uploaded figure set against what was counted: a day's revenue, its active users, and the one per the other, for each
-- day of [from, to] that has a value of the metric `name`.
SELECT
    metrics.date AS day,
    metrics.value AS value,
    ifNull(active.users, 0) AS users,
    if(users = 0, NULL, round(value / users, 2)) AS per_user
FROM custom_metrics AS metrics
LEFT JOIN
(
    SELECT day, toNullable(count()) AS users
    FROM user_days
    WHERE org_id = {org:String} AND day BETWEEN {from:Date} AND {to:Date}
    GROUP BY day
) AS active ON active.day = metrics.date
WHERE metrics.org_id = {org:String} AND metrics.name = {name:String} AND metrics.date BETWEEN {from:Date} AND {to:Date}
ORDER BY day;
