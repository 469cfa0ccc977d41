-- The users of an organization with the most events of the window [from, to), in whole minutes, with their names.
--
-- Exact, ties by id. `limit` is how many at most. (The service's own answer, GET /api/v1/users/top, is the same and
-- faster over many users.)
SELECT counts.user_id AS user_id, users.name AS name, counts.events AS events
FROM
(
    SELECT user_id, sum(events) AS events
    FROM user_minutes
    WHERE org_id = {org:String} AND minute >= {from:DateTime('UTC')} AND minute < {to:DateTime('UTC')}
    GROUP BY user_id
    ORDER BY events DESC, user_id
    LIMIT {limit:UInt32}
) AS counts
LEFT JOIN (SELECT user_id, name FROM users WHERE org_id = {org:String}) AS users ON users.user_id = counts.user_id
ORDER BY events DESC, user_id;
