#!lua
-- Prelude: the marks by which a repeated event is known.
--
-- A script that uses it is given KEYS[M] the partition's shape, then ARGV[2] buckets to look the identity mark up
-- in and, when there is a request mark, as many for that one; of each list the first is the one to insert into.
-- ARGV[1] is the shape that the caller knows, ARGV[3] and ARGV[4] are the marks ('' for no request mark) and
-- ARGV[5] is how long a new bucket lives, in seconds.
-- Invariant: a bucket lives for as long as any worker looks it up, because its time is set once, when it is made.

local call = redis.call

-- 'shape' when the caller must learn the shape first, 'duplicate' when a mark is there, else nil.
local function seen(m)
  if (call('GET', KEYS[m]) or '') ~= ARGV[1] then
    return 'shape'
  end
  local buckets = tonumber(ARGV[2])
  for i = m + 1, m + buckets do
    if call('SISMEMBER', KEYS[i], ARGV[3]) == 1 then
      return 'duplicate'
    end
  end
  if ARGV[4] ~= '' then
    for i = m + buckets + 1, m + 2 * buckets do
      if call('SISMEMBER', KEYS[i], ARGV[4]) == 1 then
        return 'duplicate'
      end
    end
  end
  return nil
end

local function insert(bucket, mark)
  call('SADD', bucket, mark)
  local fill = call('SCARD', bucket)
  if fill == 1 then
    call('EXPIRE', bucket, ARGV[5])
  end
  return fill
end

-- Inserts the marks, as the last write of a script; how full the fuller bucket is now.
local function remember(m)
  local fill = insert(KEYS[m + 1], ARGV[3])
  if ARGV[4] ~= '' then
    fill = math.max(fill, insert(KEYS[m + 1 + tonumber(ARGV[2])], ARGV[4]))
  end
  return fill
end
