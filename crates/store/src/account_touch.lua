#!lua
-- Enters a device among those of an account, and gives the account's registers.
--
-- KEYS  1 the account, 2 its devices.
-- ARGV  1 the device.
-- Gives {added, removed}, each an order or nil.
-- Invariant: whoever holds registers of an account for a device has entered it first. A later removal therefore
--       finds the device among those to tell, and an earlier one is in the registers.

redis.call('ZADD', KEYS[2], 0, ARGV[1])
return redis.call('HMGET', KEYS[1], 'added', 'removed')
