-- The five organizations with the most events of the 30 days that end at `to`, with name and plan.
--
-- Reads one row per organization, hour and type. Organizations that are not registered have no name.
-- Ties are ordered by id, so that the same question has the same answer.
SELECT
    counts.org_id AS org_id,
    organizations.name AS name,
    organizations.plan AS plan,
    sum(counts.events) AS events
FROM type_hours AS counts
LEFT JOIN organizations ON organizations.org_id = counts.org_id
WHERE counts.hour >= {to:DateTime('UTC')} - INTERVAL 30 DAY AND counts.hour < {to:DateTime('UTC')}
GROUP BY org_id, name, plan
ORDER BY events DESC, org_id
LIMIT 5;
