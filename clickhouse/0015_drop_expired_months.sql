-- Retention drops a part when all of its events have passed their time, and rewrites none: events may stay for up to a
-- month longer.
ALTER TABLE {database}.events MODIFY SETTING ttl_only_drop_parts = 1;
