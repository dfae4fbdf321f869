#!lua flags=no-writes
-- Says what apply_account.lua would decide about an event now. The server itself sees to it that nothing is written.
--
-- KEYS  as in decide_account.lua.
-- ARGV  as in decide_account.lua.
-- Gives {'shape'} when it needs more, {'duplicate'}, or {'ok', outcome, reason, note}; note is '' when no register would
--       move.

return { 'ok', outcome, reason, note }
