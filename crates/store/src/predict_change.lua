#!lua flags=no-writes
-- Says what a device would owe if account_changed.lua told it now. The server itself sees to it that nothing is written.
--
-- KEYS  1 to 8 as in device.lua.
-- ARGV  as in decide_change.lua.
-- Gives how many commands: pauses, resumes, cancels.

return { count_actions(entries) }
