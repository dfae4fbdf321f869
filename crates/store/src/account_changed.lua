#!lua
-- Tells one device that the registers of an account moved. A device that does not belong to the account may be on
-- its way to it with older registers in hand; what it needs is left with it for when it comes.
--
-- KEYS  1 to 8 as in device.lua.
-- ARGV  1 account id, 2 its hash, 3 added, 4 removed, 5 cause, 6 timestamp, 7 begin of the history line, 8 now,
--       9 when a pause or cancel is due, 10 when a resume is due.
-- Gives the entries that are owed.
-- Invariant: registers only grow, so telling a device twice, or in any order, ends the same.

local device, stored = load_device()
local added, removed = given(ARGV[3]), given(ARGV[4])
if not device.id or device.acct ~= ARGV[1] then
  local field = 'x:' .. ARGV[2]
  local left = redis.call('HGET', KEYS[1], field)
  local waiting = left and unpack_record(left) or {}
  redis.call('HSET', KEYS[1], field, pack(newest(added, waiting[1]), newest(removed, waiting[2])))
  return {}
end

take_registers(device, ARGV[1], added, removed, ARGV[2])
local when = { now = ARGV[8], due = ARGV[9], due_resume = ARGV[10] }
local entries = settle(device, load_operations(device), ARGV[6], ARGV[5], when)
write_operations()
write_device(device, stored)
if device.st ~= stored[10] then
  write_history(ARGV[7], 'applied', 'newest')
end
return entries
