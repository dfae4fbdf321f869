#!lua
-- Changes the shape of a partition's marks, unless someone else did meanwhile.
--
-- KEYS  1 the shape.
-- ARGV  1 the shape as the caller knows it ('' for none), 2 the new one.
-- Gives the shape that stands now.

local known = redis.call('GET', KEYS[1]) or ''
if known ~= ARGV[1] then
  return known
end
redis.call('SET', KEYS[1], ARGV[2])
return ARGV[2]
