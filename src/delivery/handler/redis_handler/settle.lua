-- Records how an event ended, in one step and once. If that is recorded already, changes nothing and returns the record.
-- KEYS: event:{id} dedup:{id} inflight:{id} order:{user} dlq:list dlq:{id} and the hash of counts
-- ARGV: 1 field of the counts, 2 event id, 3 status, 4 processedAt, 5 attempts, 6 user, 7 type, 8 seq or '', 9 error,
--       10 '1' for a replay, 11 reason, 12 the event as JSON
-- An event may have the id "list": then dlq:{id} is dlq:list, which stays a list, and the letter has no hash.
local has_hash = KEYS[6] ~= KEYS[5]
redis.call('DEL', KEYS[3])
local known = redis.call('GET', KEYS[2])
if known and not (ARGV[10] == '1' and known == 'failed') then
  return redis.call('HMGET', KEYS[1], 'status', 'processedAt', 'attempts', 'error')
end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'processedAt', ARGV[4], 'attempts', ARGV[5], 'userId', ARGV[6],
  'type', ARGV[7])
if ARGV[8] ~= '' then
  redis.call('HSET', KEYS[1], 'seq', ARGV[8])
end
redis.call('SET', KEYS[2], ARGV[3])
if known then
  redis.call('LREM', KEYS[5], 0, ARGV[2])
  if has_hash then
    redis.call('DEL', KEYS[6])
  end
end
if ARGV[3] == 'processed' then
  redis.call('HDEL', KEYS[1], 'error')
  if ARGV[8] ~= '' then
    redis.call('RPUSH', KEYS[4], ARGV[8])
  end
else
  redis.call('HSET', KEYS[1], 'error', ARGV[9])
  redis.call('RPUSH', KEYS[5], ARGV[2])
  if has_hash then
    redis.call('HSET', KEYS[6], 'eventId', ARGV[2], 'userId', ARGV[6], 'type', ARGV[7], 'reason', ARGV[11], 'error', ARGV[9],
      'attempts', ARGV[5], 'failedAt', ARGV[4], 'event', ARGV[12])
    if ARGV[8] ~= '' then
      redis.call('HSET', KEYS[6], 'seq', ARGV[8])
    end
  end
end
redis.call('HINCRBY', KEYS[7], ARGV[1], 1)
return false
