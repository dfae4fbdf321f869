#!lua flags=allow-oom
-- Forgets an operation and drops what it owes.
--
-- KEYS  1 the device, 2 its operations, 3 the outbox, 4 when each entry is due, 5 since when it is owed.
-- ARGV  1 operation id.
-- Gives 1 when there was one, else 0.
-- Invariant: its generations are never used again; the floor moves before the operation goes.

local stored = redis.call('HGET', KEYS[2], ARGV[1])
if not stored then
  return 0
end
local known = redis.call('HMGET', KEYS[1], 'fl', 'no')
local floor = math.max(tonumber(known[1] or '0'), tonumber(unpack_record(stored)[2]) + 1)
local member = string.sub(KEYS[1], -32) .. ':' .. ARGV[1]
redis.call('HDEL', KEYS[3], member)
redis.call('ZREM', KEYS[4], member)
redis.call('ZREM', KEYS[5], member)
redis.call('HSET', KEYS[1], 'fl', string.format('%.0f', floor), 'no', tostring(tonumber(known[2] or '1') - 1))
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
