#!lua
-- Takes one event about an account, or about nothing that has a state: duplicate check, registers, the note that
-- the account's devices must be told, and marks, in one step.
--
-- KEYS  as in decide_account.lua.
-- ARGV  as in decide_account.lua.
-- Gives {'shape'}, {'duplicate'}, or {'ok', outcome, reason, fill, note}; note is '' when no register moved.
-- Invariant: registers never move without a note, so a removal reaches every device whatever crashes.

if note ~= '' then
  redis.call('HSET', KEYS[2], string.sub(KEYS[1], -32), note)
  redis.call('HSET', KEYS[1], 'id', ARGV[6], is_removal and 'removed' or 'added', order)
end
return { 'ok', outcome, reason, remember(M), note }
