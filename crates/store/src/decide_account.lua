#!lua
-- Prelude: decides about one event that concerns an account, or nothing that has a state. It writes nothing:
-- apply_account.lua does, and predict_account.lua does not.
--
-- A script that uses it is given KEYS[1] the account, [2] the accounts whose devices must be told, 3 and on as in
-- marks.lua.
-- ARGV  1 to 5 as in marks.lua, 6 account id, 7 kind, 8 order, 9 cause, 10 timestamp, 11 begin of the history line,
--       12 when a sweeper may tell the devices.
-- It ends the script with {'shape'} when more is needed, and with {'duplicate'}. Otherwise it leaves `outcome`,
-- `reason`, and `note`, which is '' when no register moves.

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
  end
end
