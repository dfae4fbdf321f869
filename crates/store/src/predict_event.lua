#!lua flags=no-writes
-- Says what apply_event.lua would decide about an event now. The server itself sees to it that nothing is written.
--
-- KEYS  as in decide_event.lua.
-- ARGV  as in decide_event.lua.
-- Gives {'shape'} or {'account', id} when it needs more, {'duplicate'}, or {'ok', outcome, reason, then how many
--       commands it would make owed: pauses, resumes, cancels}.

return { 'ok', outcome, reason, count_actions(strangers, entries) }
