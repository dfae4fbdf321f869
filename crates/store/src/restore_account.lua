#!lua
-- Takes in what another ledger knew of an account: registers, and the note that its devices must be told.
--
-- KEYS  1 the account, 2 the accounts whose devices must be told.
-- ARGV  1 account id, 2 added, 3 removed, 4 cause, 5 timestamp, 6 begin of the history line, 7 when a sweeper may tell
--       the devices.
-- Gives the note, or '' when no register moved; then nothing changed.
-- Invariant: registers never move without a note, so they reach every device whatever crashes.

local known = redis.call('HMGET', KEYS[1], 'added', 'removed')
local added, removed = newest(known[1], given(ARGV[2])), newest(known[2], given(ARGV[3]))
if added == known[1] and removed == known[2] then
  return ''
end
local note = pack(ARGV[1], added, removed, ARGV[4], ARGV[5], ARGV[6], ARGV[7])
redis.call('HSET', KEYS[2], string.sub(KEYS[1], -32), note)
redis.call('HSET', KEYS[1], 'id', ARGV[1])
if added then
  redis.call('HSET', KEYS[1], 'added', added)
end
if removed then
  redis.call('HSET', KEYS[1], 'removed', removed)
end
return note
