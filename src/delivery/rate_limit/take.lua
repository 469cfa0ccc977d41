-- Charges a user for some events, as many as fit into the sliding window, by the clock of Redis.
-- KEYS: rate:{user}
-- ARGV: most in a window, the window in microseconds, milliseconds after which an idle window goes, one member an event
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local window = tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local room = tonumber(ARGV[1]) - redis.call('ZCARD', KEYS[1])
local count = #ARGV - 3
local granted = math.max(math.min(room, count), 0)
for i = 1, granted do
  redis.call('ZADD', KEYS[1], now, ARGV[3 + i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local wait = 0
if granted < count then
  local oldest = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  wait = oldest[2] and (oldest[2] + window - now) or window
end
return {granted, wait}
