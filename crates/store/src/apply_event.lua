#!lua
-- Takes one event about a device: duplicate check, status, operations, owed commands and marks in one step.
--
-- KEYS  as in decide_event.lua.
-- ARGV  as in decide_event.lua.
-- Gives {'shape'} or {'account', id} when it needs more and changed nothing; {'duplicate'}, nothing changed;
--       {'ok', outcome, reason, fill, entries owed by the move, entries owed by the status}.
-- Invariant: whoever sees the marks sees all that the event did. They are written last, so a step that was cut
--       short is simply done again.

write_operations()
write_device(device, stored)
if moved then
  call('HDEL', KEYS[1], 'x:' .. ARGV[19])
end
write_history(ARGV[12], outcome, reason)
return { 'ok', outcome, reason, remember(M), strangers, entries }
