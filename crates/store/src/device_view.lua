#!lua flags=no-writes
-- Reads one device whole: registers, operations, what they owe, history.
--
-- KEYS  1 the device, 2 its operations, 3 its history, 4 the outbox.
-- ARGV  1 most lines of history.
-- Gives {fields and values, operation ids and records, owed entries, lines}.

local operations = redis.call('HGETALL', KEYS[2])
local entries = {}
for i = 1, #operations, 2 do
  local entry = redis.call('HGET', KEYS[4], string.sub(KEYS[1], -32) .. ':' .. operations[i])
  if entry then
    entries[#entries + 1] = entry
  end
end
return {
  redis.call('HGETALL', KEYS[1]), operations, entries, redis.call('LRANGE', KEYS[3], 0, tonumber(ARGV[1]) - 1),
}
