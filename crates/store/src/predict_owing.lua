#!lua flags=no-writes
-- Says whether owe_again.lua would owe a command now. The server itself sees to it that nothing is written.
--
-- KEYS  as in owe_again.lua.
-- ARGV  as in owe_again.lua; the first six are looked at.
-- Gives 1 when it would be owed, 0 when its operation is gone or went on.

return 1
