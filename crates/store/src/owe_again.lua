#!lua
-- Owes a command again that was given up, where it still says what its operation is in; due now.
--
-- KEYS  1 the device's operations, 2 the outbox, 3 when each entry is due, 4 since when it is owed.
-- ARGV  1 member of the outbox, 2 state that belongs to the action, 3 now, 4 action, 5 generation, 6 operation id,
--       7 kind, 8 params, 9 device id, 10 account ('=' and the id, or ''), 11 cause.
-- Gives 1 when it is owed, 0 when its operation is gone or went on; then nothing changed.
-- Invariant: a newer command is never replaced. One that is owed already keeps its entry and is only due at once.

if is_owed then
  redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
  return 1
end
local account = ARGV[10] ~= '' and string.sub(ARGV[10], 2)
local again = pack(ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], account, ARGV[11], ARGV[3], ARGV[3])
redis.call('HSET', KEYS[2], ARGV[1], again)
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
return 1
