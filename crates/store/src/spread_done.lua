#!lua flags=allow-oom
-- Strikes off the note that an account's devices must be told, unless a newer one took its place meanwhile.
--
-- KEYS  1 the accounts whose devices must be told.
-- ARGV  1 hash of the account, 2 the note that was carried out.
-- Gives 1 when it is gone, 0 when a newer one stays.

if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
return redis.call('HDEL', KEYS[1], ARGV[1])
