-- Subscriptions that begin in the past read an organization's events in the order of arrival, page by page. Events that
-- arrived together mostly lie together, so the lowest and the highest version of every four granules tell which of them
-- a page needs. Parts written before get the index in the background.
ALTER TABLE {database}.events ADD INDEX IF NOT EXISTS version_range version TYPE minmax GRANULARITY 4;

ALTER TABLE {database}.events MATERIALIZE INDEX version_range;
