#!lua
-- Takes in marks of one generation, each unless one of the generation's levels has it; stops where a bucket is full.
--
-- KEYS  1 the partition's shape, then buckets.
-- ARGV  1 the shape as the caller knows it, 2 how long a new bucket lives, in seconds, 3 how full a bucket may become,
--       4 levels; then for each mark: the mark, and for each level the place of its bucket in KEYS. The first level is
--       the one to insert into.
-- Gives -1 when the caller must learn the shape first, else how many marks are there now, of those given, from the
--       first on.
-- Invariant: a bucket lives for as long as any worker looks it up, because its time is set once, when it is made.

local call = redis.call
if (call('GET', KEYS[1]) or '') ~= ARGV[1] then
  return -1
end
local fill_max, levels = tonumber(ARGV[3]), tonumber(ARGV[4])
local done = 0
for at = 5, #ARGV, levels + 1 do
  local mark, is_known = ARGV[at], false
  for level = 1, levels do
    if call('SISMEMBER', KEYS[tonumber(ARGV[at + level])], mark) == 1 then
      is_known = true
      break
    end
  end
  if not is_known then
    local bucket = KEYS[tonumber(ARGV[at + 1])]
    local fill = call('SCARD', bucket)
    if fill >= fill_max then
      return done
    end
    call('SADD', bucket, mark)
    if fill == 0 then
      call('EXPIRE', bucket, ARGV[2])
    end
  end
  done = done + 1
end
return done
