#!lua
-- Proves that the server takes writes from scripts.
--
-- KEYS  1 a key of its own.
-- ARGV  1 now, 2 how long the key lives, in milliseconds.
-- Gives OK.

return redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
