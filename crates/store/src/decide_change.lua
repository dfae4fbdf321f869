#!lua
-- Prelude: what a device makes of the registers of an account that moved. It writes nothing: account_changed.lua does,
-- and predict_change.lua does not.
--
-- A script that uses it is given KEYS 1 to 8 as in device.lua.
-- ARGV  1 account id, 2 its hash, 3 added, 4 removed, 5 cause, 6 timestamp, 7 begin of the history line, 8 now,
--       9 when a pause or cancel is due, 10 when a resume is due.
-- It leaves `belongs`, whether the device is the account's, the moved device, and what is owed because of it (`entries`).

local device, stored = load_device()
local added, removed = given(ARGV[3]), given(ARGV[4])
local belongs = device.id and device.acct == ARGV[1]
local entries = {}
if belongs then
  take_registers(device, ARGV[1], added, removed, ARGV[2])
  local when = { now = ARGV[8], due = ARGV[9], due_resume = ARGV[10] }
  entries = settle(device, load_operations(device), ARGV[6], ARGV[5], when)
end
