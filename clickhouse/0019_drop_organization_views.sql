-- The views of {database}_org knew the organization by a setting of the reader, and a subquery can set it: whoever may read
-- them reads every organization. Each organization now has views of its own, in a database of its own: see
-- templates/organization_views.sql.
DROP VIEW IF EXISTS {database}_org.events;
DROP VIEW IF EXISTS {database}_org.organizations;
DROP VIEW IF EXISTS {database}_org.users;
DROP VIEW IF EXISTS {database}_org.memberships;
DROP VIEW IF EXISTS {database}_org.custom_metrics;
DROP VIEW IF EXISTS {database}_org.event_types;
DROP VIEW IF EXISTS {database}_org.type_hours;
DROP VIEW IF EXISTS {database}_org.campaign_minutes;
DROP VIEW IF EXISTS {database}_org.user_days;
DROP VIEW IF EXISTS {database}_org.user_minutes;
