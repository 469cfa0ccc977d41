-- How far users came: of those who signed up in the window [from, to), how many then put something into their cart, and
-- how many of these then bought something, each within `seconds` of having signed up.
--
-- windowFunnel finds the longest run of steps in their order; other events in between do not matter. A user counts at
-- every step that was reached. Replace the conditions by your own steps.
WITH reached AS
(
    SELECT
        user_id,
        windowFunnel({seconds:UInt64} * 1000)(
            toUInt64(toUnixTimestamp64Milli(occurred_at)),
            type = 'signup',
            type = 'add_to_cart',
            type = 'purchase'
        ) AS steps
    FROM events
    WHERE org_id = {org:String} AND user_id != ''
      AND occurred_at >= {from:DateTime('UTC')} AND occurred_at < {to:DateTime('UTC')}
    GROUP BY user_id
)
SELECT stage.1 AS step, stage.2 AS name, countIf(steps >= step) AS users
FROM reached
ARRAY JOIN [(1, 'signup'), (2, 'add_to_cart'), (3, 'purchase')] AS stage
GROUP BY step, name
ORDER BY step;
