#!lua
-- Tells one device that the registers of an account moved. A device that does not belong to the account may be on
-- its way to it with older registers in hand; what it needs is left with it for when it comes.
--
-- KEYS  1 to 8 as in device.lua.
-- ARGV  as in decide_change.lua.
-- Gives the entries that are owed.
-- Invariant: registers only grow, so telling a device twice, or in any order, ends the same.

if not belongs then
  local field = 'x:' .. ARGV[2]
  local left = redis.call('HGET', KEYS[1], field)
  local waiting = left and unpack_record(left) or {}
  redis.call('HSET', KEYS[1], field, pack(newest(added, waiting[1]), newest(removed, waiting[2])))
  return {}
end

write_operations()
write_device(device, stored)
if device.st ~= stored[10] then
  write_history(ARGV[7], 'applied', 'newest')
end
return entries
