-- Writes the record of an event that ended, if Redis has lost it.
-- KEYS: event:{id} dedup:{id}
-- ARGV: status, processedAt, attempts, user, type, seq or '', error
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('EXISTS', KEYS[2]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'status', ARGV[1], 'processedAt', ARGV[2], 'attempts', ARGV[3], 'userId', ARGV[4],
  'type', ARGV[5])
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[1], 'seq', ARGV[6])
end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[1], 'error', ARGV[7])
end
redis.call('SET', KEYS[2], ARGV[1])
return 1
