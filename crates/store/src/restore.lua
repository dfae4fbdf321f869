#!lua
-- Takes in what another ledger knew of a device: registers, operations, what they owe, and its history where there is
-- none. It mirrors `Device::merge` of the device crate, which explains the rules.
--
-- KEYS  1 to 8 as in device.lua.
-- ARGV  1 device id, 2 account ('=' and the id, or ''), 3 order of the event that named it, 4 newest online or offline
--       order, 5 which, 6 added, 7 removed, 8 and 9 the same of its account, 10 status, 11 since when, 12 generation
--       floor, 13 cause, 14 now, 15 when a pause or cancel is due, 16 when a resume is due, 17 account whose registers
--       follow ('=' and the id, or ''), 18 added, 19 removed, 20 hash of that account, 21 operations, 22 lines of
--       history; then for each operation: id, state, generation, account ('=' and the id, or ''), kind, params, action
--       that it owes ('' for none), and of that command kind, params, account, cause, since when; then the lines.
-- Gives {'account', id} when it needs registers and changed nothing; {'ok', entries owed by the move, entries owed by
--       the status}, of which the first or both are newly owed.
-- Invariant: done again it changes nothing. What is dropped goes before what is owed, so a step cut short is done again.

local PROGRESS = { paused = 0, resuming = 1, running = 2, cancelled = 3 }
local device, stored = load_device()
local account = ARGV[2] ~= '' and string.sub(ARGV[2], 2)
local account_order = given(ARGV[3])
local when = { now = ARGV[14], due = ARGV[15], due_resume = ARGV[16] }

local after = device.acct
if account and (not device.acct or larger(account_order, device.ao)) then
  after = account
end
if after and ARGV[17] ~= '=' .. after then
  return { 'account', after }
end

-- The later of two times, which are integers as text, or false.
local function later(a, b)
  if not a or not b then
    return a or b
  end
  local a_below, b_below = string.sub(a, 1, 1) == '-', string.sub(b, 1, 1) == '-'
  if a_below ~= b_below then
    return a_below and b or a
  end
  local is_larger = #a > #b or (#a == #b and a > b)
  return (is_larger ~= a_below) and a or b
end

local moved = after ~= device.acct
local own_floor, their_floor = tonumber(device.fl or '0'), tonumber(ARGV[12])
local operations = load_operations(device)
device.id = ARGV[1]
device.ao = newest(device.ao, account_order)
if after then
  take_registers(device, after, given(ARGV[18]), given(ARGV[19]), ARGV[20])
end
if account == (after or false) then
  device.aa, device.ar = newest(device.aa, given(ARGV[8])), newest(device.ar, given(ARGV[9]))
end
if larger(given(ARGV[4]), device.s) then
  device.s, device.v = ARGV[4], ARGV[5]
end
device.ad, device.rm = newest(device.ad, given(ARGV[6])), newest(device.rm, given(ARGV[7]))
if their_floor > own_floor then
  device.fl = ARGV[12]
end

local DROPPED, theirs, known = {}, {}, {}

local function member_of(operation)
  return hash_of_device .. ':' .. operation.id
end

local function owe_theirs(operation, owed)
  local due = owed.action == 'resume' and when.due_resume or when.due
  local generation = string.format('%.0f', operation.generation)
  local entry = pack(
    owed.action, generation, operation.id, owed.kind, owed.params, device.id, owed.account, owed.cause, owed.since, due
  )
  OWED[#OWED + 1] = { member = member_of(operation), entry = entry, due = due, now = when.now }
end

-- One that the other side does not know begins no generation that it may have used.
local function lift(operation)
  if operation.generation >= their_floor then
    return
  end
  operation.generation = their_floor
  STATE[#STATE + 1] = operation
  local entry = call('HGET', KEYS[4], member_of(operation))
  if entry then
    local owed = unpack_record(entry)
    owe_theirs(operation, {
      action = owed[1], kind = owed[4], params = owed[5], account = owed[7], cause = owed[8], since = owed[9],
    })
  end
end

local function merge_operation(operation, owed)
  local own = known[operation.id]
  if not own then
    operation.generation = math.max(operation.generation, own_floor)
    operations[#operations + 1] = operation
    device.no = tostring(tonumber(device.no or '0') + 1)
  else
    local ahead = operation.generation - own.generation
    if ahead == 0 then
      ahead = PROGRESS[operation.state] - PROGRESS[own.state]
    end
    if ahead < 0 then
      return
    elseif ahead == 0 then
      if not owed then
        DROPPED[#DROPPED + 1] = member_of(operation)
      end
      return
    end
    own.state, own.generation, own.account = operation.state, operation.generation, operation.account
    own.kind, own.params = operation.kind, operation.params
    operation = own
  end
  STATE[#STATE + 1] = operation
  if owed then
    owe_theirs(operation, owed)
  else
    DROPPED[#DROPPED + 1] = member_of(operation)
  end
end

for _, operation in ipairs(operations) do
  known[operation.id] = operation
end
local at, count = 22, tonumber(ARGV[21])
for _ = 1, count do
  theirs[ARGV[at + 1]] = true
  at = at + 12
end
for _, operation in ipairs(operations) do
  if not theirs[operation.id] then
    lift(operation)
  end
end
at = 22
for _ = 1, count do
  local operation = {
    id = ARGV[at + 1], state = ARGV[at + 2], generation = tonumber(ARGV[at + 3]),
    account = ARGV[at + 4] ~= '' and string.sub(ARGV[at + 4], 2), kind = ARGV[at + 5], params = ARGV[at + 6],
  }
  local owed = ARGV[at + 7] ~= '' and {
    action = ARGV[at + 7], kind = ARGV[at + 8], params = ARGV[at + 9],
    account = ARGV[at + 10] ~= '' and string.sub(ARGV[at + 10], 2), cause = ARGV[at + 11], since = ARGV[at + 12],
  }
  merge_operation(operation, owed)
  at = at + 12
end

local status, since = derived_status(device), false
if device.st == status then
  since = device.si
end
if ARGV[10] == status then
  since = later(since, given(ARGV[11]))
end
if device.st ~= status and ARGV[10] ~= status then
  since = when.now
end
device.st, device.si = status, since

local strangers = {}
for _, operation in ipairs(operations) do
  if operation.account and operation.account ~= (after or false) and operation.state ~= 'cancelled' then
    operation.state = 'cancelled'
    strangers[#strangers + 1] = owe(device, operation, 'cancel', ARGV[13], when)
  end
end
local entries = settle(device, operations, when.now, ARGV[13], when)

for _, member in ipairs(DROPPED) do
  call('HDEL', KEYS[4], member)
  call('ZREM', KEYS[5], member)
  call('ZREM', KEYS[6], member)
end
write_operations()
write_device(device, stored)
if moved then
  call('HDEL', KEYS[1], 'x:' .. ARGV[20])
end
if ARGV[22] ~= '0' and call('EXISTS', KEYS[3]) == 0 then
  for line = at + 1, at + tonumber(ARGV[22]) do
    call('RPUSH', KEYS[3], ARGV[line])
  end
end
return { 'ok', strangers, entries }
