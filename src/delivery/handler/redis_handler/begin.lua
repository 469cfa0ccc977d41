-- Marks an event as being handled, unless it has ended: then returns the record of how.
-- KEYS: event:{id} dedup:{id} inflight:{id}
-- ARGV: milliseconds that the mark lasts, "1" for a replay
local known = redis.call('GET', KEYS[2])
if known and not (ARGV[2] == '1' and known == 'failed') then
  redis.call('DEL', KEYS[3])
  return redis.call('HMGET', KEYS[1], 'status', 'processedAt', 'attempts', 'error')
end
redis.call('SET', KEYS[3], '1', 'PX', ARGV[1])
return false
