#!lua
-- Prelude: decides about one event that concerns a device, by duplicate check, registers, status and operations. It
-- writes nothing: apply_event.lua does, and predict_event.lua does not.
--
-- A script that uses it is given KEYS 1 to 8 as in device.lua, 9 and on as in marks.lua.
-- ARGV  1 to 5 as in marks.lua, 6 device id, 7 kind, 8 order, 9 account ('=' and the id, or ''), 10 timestamp,
--       11 cause, 12 begin of the history line, 13 now, 14 when a pause or cancel is due, 15 when a resume is due,
--       16 account whose registers follow ('=' and the id, or ''), 17 added, 18 removed, 19 hash of that account.
-- It ends the script with {'shape'} or {'account', id} when more is needed, and with {'duplicate'}. Otherwise it leaves
-- `outcome`, `reason`, what is owed by the move (`strangers`) and by the status (`entries`), and the moved device.

local M = 9
local verdict = seen(M)
if verdict then
  return { verdict }
end

local kind, order = ARGV[7], ARGV[8]
local account = ARGV[9] ~= '' and string.sub(ARGV[9], 2)
local cause = ARGV[11]
local when = { now = ARGV[13], due = ARGV[14], due_resume = ARGV[15] }
local device, stored = load_device()

local after = device.acct
if account and (not device.acct or larger(order, device.ao)) then
  after = account
end
local moved = after ~= device.acct
local has_registers = after and ARGV[16] == '=' .. after
if not has_registers and (moved or (device.acct and fenced_by_account(device))) then
  return { 'account', after }
end

device.id = ARGV[6]
local operations = load_operations(device)
local strangers = {}
if account and after == account then
  device.ao = newest(device.ao, order)
end
if has_registers then
  take_registers(device, after, given(ARGV[17]), given(ARGV[18]), ARGV[19])
end
if moved then
  for _, operation in ipairs(operations) do
    if operation.account and operation.account ~= after and operation.state ~= 'cancelled' then
      operation.state = 'cancelled'
      strangers[#strangers + 1] = owe(device, operation, 'cancel', cause, when)
    end
  end
end

local function about_status()
  local is_newest = larger(order, device.s)
  if is_newest then
    device.s, device.v = order, kind
  end
  if larger(device.rm, device.ad) then
    return 'refused', 'device_removed'
  elseif fenced_by_account(device) then
    return 'refused', 'account_removed'
  elseif larger(last_removal(device), order) then
    return 'refused', 'removed_later'
  elseif is_newest then
    return 'applied', 'newest'
  end
  return 'stale', 'older_than_known'
end

local function about_addition()
  local is_newest = larger(order, device.ad)
  if is_newest then
    device.ad = order
  end
  if larger(last_removal(device), order) then
    return 'refused', 'removed_later'
  elseif is_newest then
    return 'applied', 'newest'
  end
  return 'stale', 'older_than_known'
end

local function about_removal()
  if not larger(order, device.rm) then
    return 'stale', 'older_than_known'
  end
  local before = derived_status(device)
  device.rm = order
  local now = derived_status(device)
  if now == 'removed' or now ~= before then
    return 'applied', 'newest'
  end
  return 'stale', 'added_since'
end

local outcome, reason = 'recorded', 'no_effect'
if kind == 'online' or kind == 'offline' then
  outcome, reason = about_status()
elseif kind == 'added' then
  outcome, reason = about_addition()
elseif kind == 'removed' then
  outcome, reason = about_removal()
end
local entries = settle(device, operations, ARGV[10], cause, when)
