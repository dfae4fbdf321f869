#!lua
-- Prelude: how many of some entries are of each action.

-- Pauses, resumes, cancels; the last of an expression list, so that all three are given.
local function count_actions(...)
  local counts = { pause = 0, resume = 0, cancel = 0 }
  for i = 1, select('#', ...) do
    for _, entry in ipairs((select(i, ...))) do
      local action = unpack_record(entry)[1]
      counts[action] = counts[action] + 1
    end
  end
  return counts.pause, counts.resume, counts.cancel
end
