#!lua flags=allow-oom
-- Notes that a command was delivered: it is owed no longer, and a resumed operation runs again.
--
-- KEYS  1 the device's operations, 2 the outbox, 3 when each entry is due, 4 since when it is owed.
-- ARGV  1 member of the outbox, 2 operation id, 3 action, 4 generation.
-- Gives 1 when it was owed, 0 when a newer command or nothing stands there; then nothing changed.
-- Invariant: the operation moves before the entry goes, so a step cut short is done again.

local entry = redis.call('HGET', KEYS[2], ARGV[1])
if not entry then
  return 0
end
local owed = unpack_record(entry)
if owed[1] ~= ARGV[3] or owed[2] ~= ARGV[4] then
  return 0
end
local stored = ARGV[3] == 'resume' and redis.call('HGET', KEYS[1], ARGV[2])
if stored then
  local operation = unpack_record(stored)
  if operation[1] == 'resuming' and operation[2] == ARGV[4] then
    redis.call('HSET', KEYS[1], ARGV[2], pack('running', operation[2], operation[3], operation[4], operation[5]))
  end
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return 1
