#!lua
-- Prelude: a device's registers, its status derived from them, its operations and what they owe.
-- It mirrors `Device` of the device crate, function by function; that one explains the rules.
--
-- A script that uses it is given KEYS[1] the device, [2] its operations, [3] its history, then of its partition
-- [4] the outbox, [5] when each entry is due, [6] since when it is owed, [7] the counts by status, [8] the index.
-- Invariant: counts and index agree with the devices; an operation has at most one entry in the outbox.

local call = redis.call
local hash_of_device = string.sub(KEYS[1], -32)
local FIELDS = { 'id', 'acct', 'ao', 's', 'v', 'ad', 'rm', 'aa', 'ar', 'st', 'si', 'fl', 'no' }
local OWED, STATE, HISTORY_MAX, HISTORY_SLACK = {}, {}, 20, 4

-- The device, and its values as stored to see later what changed.
local function load_device()
  local stored = call('HMGET', KEYS[1], unpack(FIELDS))
  local device = {}
  for i = 1, #FIELDS do
    device[FIELDS[i]] = stored[i]
  end
  device.st = device.st or 'unknown'
  return device, stored
end

local function account_lift(device)
  return newest(device.aa, device.ad)
end

local function last_removal(device)
  return newest(device.rm, device.ar)
end

local function fenced_by_account(device)
  return larger(device.ar, account_lift(device))
end

local function derived_status(device)
  if larger(device.rm, device.ad) or fenced_by_account(device) then
    return 'removed'
  end
  if device.s and larger(device.s, last_removal(device)) then
    return device.v
  end
  return 'unknown'
end

-- Takes registers of the account `after`. Those of an account that the device comes to are merged with what a
-- spread left for it here before it came.
local function take_registers(device, after, added, removed, account_hash)
  if after == device.acct then
    device.aa, device.ar = newest(device.aa, added), newest(device.ar, removed)
    return
  end
  local left = call('HGET', KEYS[1], 'x:' .. account_hash)
  local waiting = left and unpack_record(left) or {}
  device.aa, device.ar = newest(added, waiting[1]), newest(removed, waiting[2])
  device.acct = after
end

local function to_operation(id, text)
  local values = unpack_record(text)
  return { id = id, state = values[1], generation = tonumber(values[2]), account = values[3], kind = values[4], params = values[5] }
end

local function load_operations(device)
  local operations = {}
  if device.no and device.no ~= '0' then
    local stored = call('HGETALL', KEYS[2])
    for i = 1, #stored, 2 do
      operations[#operations + 1] = to_operation(stored[i], stored[i + 1])
    end
  end
  return operations
end

local function stored_operation(operation)
  local generation = string.format('%.0f', operation.generation)
  return pack(operation.state, generation, operation.account, operation.kind, operation.params)
end

-- The action that an operation owes when its device's status is `status`; moves the operation.
local function follow(operation, status)
  local state = operation.state
  if status == 'offline' and (state == 'running' or state == 'resuming') then
    operation.state, operation.generation = 'paused', operation.generation + 1
    return 'pause'
  elseif status == 'online' and state == 'paused' then
    operation.state = 'resuming'
    return 'resume'
  elseif status == 'removed' and state ~= 'cancelled' then
    operation.state = 'cancelled'
    return 'cancel'
  end
  return nil
end

-- Notes what an operation owes from now on; `write_operations` writes it. `when` has now, due, due_resume.
local function owe(device, operation, action, cause, when)
  local due = action == 'resume' and when.due_resume or when.due
  local generation = string.format('%.0f', operation.generation)
  local entry = pack(
    action, generation, operation.id, operation.kind, operation.params, device.id,
    operation.account or device.acct, cause, when.now, due
  )
  OWED[#OWED + 1] = { member = hash_of_device .. ':' .. operation.id, entry = entry, due = due, now = when.now }
  STATE[#STATE + 1] = operation
  return entry
end

-- Derives the status anew and brings every operation in line with it; the entries that are owed.
local function settle(device, operations, timestamp, cause, when)
  local status = derived_status(device)
  if status ~= device.st then
    device.st, device.si = status, timestamp
  end
  local entries = {}
  for _, operation in ipairs(operations) do
    local action = follow(operation, status)
    if action then
      entries[#entries + 1] = owe(device, operation, action, cause, when)
    end
  end
  return entries
end

-- First writes: the outbox, then the operations whose state it speaks of.
local function write_operations()
  for _, owed in ipairs(OWED) do
    call('HSET', KEYS[4], owed.member, owed.entry)
    call('ZADD', KEYS[5], owed.due, owed.member)
    call('ZADD', KEYS[6], owed.now, owed.member)
  end
  for _, operation in ipairs(STATE) do
    call('HSET', KEYS[2], operation.id, stored_operation(operation))
  end
end

-- Then the device, then what is derived from it.
local function write_device(device, stored)
  local changed = {}
  for i = 1, #FIELDS do
    local name = FIELDS[i]
    local value = device[name]
    if value ~= stored[i] then
      if value then
        changed[#changed + 1] = name
        changed[#changed + 1] = value
      else
        call('HDEL', KEYS[1], name) -- a register of the account that the device left
      end
    end
  end
  if #changed > 0 then
    call('HSET', KEYS[1], unpack(changed))
  end
  if not stored[1] then
    call('HINCRBY', KEYS[7], device.st, 1)
    call('ZADD', KEYS[8], 0, hash_of_device)
  elseif device.st ~= stored[10] then
    call('HINCRBY', KEYS[7], stored[10], -1)
    call('HINCRBY', KEYS[7], device.st, 1)
  end
end

-- Adds a line of history. It is cut a few lines late, which saves most of the cuts.
local function write_history(begin, outcome, reason)
  local line = begin .. ',"outcome":"' .. outcome .. '","reason":"' .. reason .. '"}'
  if call('LPUSH', KEYS[3], line) > HISTORY_MAX + HISTORY_SLACK then
    call('LTRIM', KEYS[3], 0, HISTORY_MAX - 1)
  end
end
