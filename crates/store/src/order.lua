#!lua
-- Prelude: comparing orders, and records of several texts in one value.
--
-- An order is 40 digits and then text; an absent one is false and stands before all others.
-- Invariant: nothing here turns an order, a timestamp or a mark into a number, which would lose digits.

-- Whether order a stands after order b. The text behind the digits is compared byte by byte: `<` on strings
-- follows the locale of the server, which for digits of equal length is the order of numbers everywhere.
local function larger(a, b)
  if not a then
    return false
  end
  if not b then
    return true
  end
  local x, y = string.sub(a, 1, 40), string.sub(b, 1, 40)
  if x ~= y then
    return x > y
  end
  for i = 41, math.min(#a, #b) do
    local p, q = string.byte(a, i), string.byte(b, i)
    if p ~= q then
      return p > q
    end
  end
  return #a > #b
end

local function newest(a, b)
  if larger(b, a) then
    return b
  end
  return a
end

-- '' stands for an absent order in arguments.
local function given(order)
  return order ~= '' and order
end

-- Each value as <length>:<bytes>, an absent one as -:
local function pack(...)
  local parts = {}
  for i = 1, select('#', ...) do
    local value = select(i, ...)
    parts[i] = value and (#value .. ':' .. value) or '-:'
  end
  return table.concat(parts)
end

local function unpack_record(text)
  local values, count, at = {}, 0, 1
  while at <= #text do
    local colon = string.find(text, ':', at, true)
    local length = string.sub(text, at, colon - 1)
    count = count + 1
    if length == '-' then
      values[count] = false
      at = colon + 1
    else
      values[count] = string.sub(text, colon + 1, colon + length)
      at = colon + length + 1
    end
  end
  return values
end
