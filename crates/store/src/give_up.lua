#!lua flags=allow-oom
-- Strikes a command off that could not be delivered; its operation stays as it is.
--
-- KEYS  1 the outbox, 2 when each entry is due, 3 since when it is owed.
-- ARGV  1 member of the outbox, 2 action, 3 generation.
-- Gives 1 when it was owed, 0 when a newer command or nothing stands there; then nothing changed.
-- Invariant: the entry goes first, so a member that is left over in the other two is one that claim drops.

local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then
  return 0
end
local owed = unpack_record(entry)
if owed[1] ~= ARGV[2] or owed[2] ~= ARGV[3] then
  return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
