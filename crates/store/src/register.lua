#!lua
-- Registers an operation, or updates its kind and parameters; paused at once when the device is offline.
--
-- KEYS  1 to 8 as in device.lua.
-- ARGV  1 device id, 2 operation id, 3 account ('=' and the id, or ''), 4 kind, 5 params, 6 cause, 7 now, 8 when a
--       pause or cancel is due, 9 when a resume is due, 10 account whose registers follow ('=' and the id, or ''),
--       11 added, 12 removed, 13 hash of that account, 14 most operations of one device.
-- Gives {'account', id} when it needs registers and changed nothing, {'refused', code}, nothing changed, or
--       {'ok', entry}; entry is '' when nothing is owed.
-- Invariant: it reads the status and writes the state in one step, so no wake-up falls between the two.

local device, stored = load_device()
local account = ARGV[3] ~= '' and string.sub(ARGV[3], 2)
local when = { now = ARGV[7], due = ARGV[8], due_resume = ARGV[9] }
local before = device.acct
local after = before or account
if after and ARGV[10] ~= '=' .. after then
  return { 'account', after }
end
if after then
  take_registers(device, after, given(ARGV[11]), given(ARGV[12]), ARGV[13])
end
local status = derived_status(device)
if status ~= device.st then
  device.st, device.si = status, when.now
end
if status == 'removed' then
  return { 'refused', 'device_removed' }
elseif before and account and account ~= before then
  return { 'refused', 'account_mismatch' }
end

local known = redis.call('HGET', KEYS[2], ARGV[2])
local count = tonumber(device.no or '0')
if not known and count >= tonumber(ARGV[14]) then
  return { 'refused', 'too_many_operations' }
end
local old = known and to_operation(ARGV[2], known)
local operation = {
  id = ARGV[2], kind = ARGV[4], params = ARGV[5], account = account or after,
  state = 'running', generation = tonumber(device.fl or '0'),
}
local revived = old and old.state == 'cancelled'
if revived then
  operation.generation = old.generation + 1
elseif old then
  operation.state, operation.generation = old.state, old.generation
else
  device.no = tostring(count + 1)
end
device.id = ARGV[1]
local action = follow(operation, status)
local entry = ''
if action then
  entry = owe(device, operation, action, ARGV[6], when)
else
  STATE[1] = operation
end

if revived and not action then
  local member = hash_of_device .. ':' .. ARGV[2]
  redis.call('HDEL', KEYS[4], member)
  redis.call('ZREM', KEYS[5], member)
  redis.call('ZREM', KEYS[6], member)
end
write_operations()
write_device(device, stored)
if after and not before then
  redis.call('HDEL', KEYS[1], 'x:' .. ARGV[13])
end
return { 'ok', entry }
