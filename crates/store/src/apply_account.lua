#!lua
-- Takes one event about an account, or about nothing that has a state: duplicate check, registers, the note that
-- the account's devices must be told, and marks, in one step.
--
-- KEYS  1 the account, 2 the accounts whose devices must be told, 3 and on as in marks.lua.
-- ARGV  1 to 5 as in marks.lua, 6 account id, 7 kind, 8 order, 9 cause, 10 timestamp, 11 begin of the history line,
--       12 when a sweeper may tell the devices.
-- Gives {'shape'}, {'duplicate'}, or {'ok', outcome, reason, fill, note}; note is '' when no register moved.
-- Invariant: registers never move without a note, so a removal reaches every device whatever crashes.

local M = 3
local verdict = seen(M)
if verdict then
  return { verdict }
end

local kind, order = ARGV[7], ARGV[8]
local outcome, reason, note = 'recorded', 'no_effect', ''
local is_removal = kind == 'account_removed'
if is_removal or kind == 'account_added' then
  local known = redis.call('HMGET', KEYS[1], 'added', 'removed')
  local added, removed = known[1], known[2]
  if not larger(order, is_removal and removed or not is_removal and added) then
    outcome, reason = 'stale', 'older_than_known'
  else
    outcome, reason = 'applied', 'newest'
    if is_removal then
      removed = order
      if not larger(removed, added) then
        outcome, reason = 'stale', 'added_since'
      end
    else
      added = order
      if larger(removed, order) then
        outcome, reason = 'refused', 'removed_later'
      end
    end
    note = pack(ARGV[6], added, removed, ARGV[9], ARGV[10], ARGV[11], ARGV[12])
    redis.call('HSET', KEYS[2], string.sub(KEYS[1], -32), note)
    redis.call('HSET', KEYS[1], 'id', ARGV[6], is_removal and 'removed' or 'added', order)
  end
end
return { 'ok', outcome, reason, remember(M), note }
