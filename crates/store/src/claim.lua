#!lua flags=allow-oom
-- Takes due entries of one partition's outbox and holds them back from other sweepers for a while.
--
-- KEYS  1 the outbox, 2 when each entry is due.
-- ARGV  1 now, 2 most entries, 3 shortest and 4 longest hold, in milliseconds, 5 seed of the jitter.
-- Gives the entries.
-- Invariant: an entry is only held back, never removed; that is confirm's. The hold is as long as the entry is
--       overdue since it first was, times 0.75 to 1.25: the pauses between attempts about double, and what failed
--       together does not come back together. `hold_ms` of the device crate is its twin.

local now, shortest, longest = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local function bounded(ms)
  return math.min(math.max(ms, shortest), longest)
end
math.randomseed(tonumber(ARGV[5])) -- a script's own numbers are the same in every run
local members = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[2])
if #members == 0 then
  return {}
end
local stored = redis.call('HMGET', KEYS[1], unpack(members))
local entries = {}
for i, member in ipairs(members) do
  if stored[i] then
    entries[#entries + 1] = stored[i]
    -- An entry that cannot be read is held back as long as may be, and stops no other.
    local read, record = pcall(unpack_record, stored[i])
    local first_due = read and type(record) == 'table' and tonumber(record[10])
    local overdue = first_due and now - first_due or longest
    local hold = bounded(bounded(overdue) * (0.75 + math.random() / 2))
    redis.call('ZADD', KEYS[2], string.format('%.0f', now + hold), member)
  else
    redis.call('ZREM', KEYS[2], member)
  end
end
return entries
