#!lua
-- Prelude: whether a command may be owed again. It writes nothing: owe_again.lua does, and predict_owing.lua does not.
--
-- A script that uses it is given KEYS[1] the device's operations, [2] the outbox.
-- ARGV  1 member of the outbox, 2 state that belongs to the action, 3 now, 4 action, 5 generation, 6 operation id,
--       and more.
-- It ends the script with 0 when the operation is gone or went on. Otherwise it leaves `is_owed`, whether the command is
-- owed already.

local stored = redis.call('HGET', KEYS[1], ARGV[6])
local operation = stored and unpack_record(stored)
if not operation or operation[1] ~= ARGV[2] or operation[2] ~= ARGV[5] then
  return 0
end
local is_owed = redis.call('HGET', KEYS[2], ARGV[1])
if is_owed then
  local owed = unpack_record(is_owed)
  if owed[1] ~= ARGV[4] or owed[2] ~= ARGV[5] then
    return 0
  end
end
