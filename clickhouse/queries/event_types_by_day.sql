-- Events of an organization per UTC day and type, in the window [from, to).
SELECT toDate(hour) AS day, type, sum(events) AS events
FROM type_hours
WHERE org_id = {org:String} AND hour >= {from:DateTime('UTC')} AND hour < {to:DateTime('UTC')}
GROUP BY day, type
ORDER BY day, type;
