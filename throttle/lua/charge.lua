-- Counts what the data set may have forgotten, and closes every timeline for as
-- long as slots may have been taken ahead.
--
-- ARGV: AHEAD; GRACE (see run.lua); COUNT of timelines, then NAME each; counters (see lib.lua);
--       COUNT of charges, then COUNTER N FILL each (FILL 1: up to N)
-- Returns: when the last connection was granted of which this Redis knew when it
--       began, and from when on it grants others (0: there was none)

local ahead, grace = num(), num()
for _ = 1, num() do
  local name = take()
  local free = tonumber(redis.call('HGET', state, name) or '') or 0
  change(name, math.max(free, now + ahead))
end
local cs = counters()
for _ = 1, num() do
  local c, n, fill = cs[num()], num(), take() == '1'
  if fill then
    n = n - c.used
  end
  if n > 0 then
    count(c, n)
  end
end
local _, since, from = whoIsIt(grace)
save()
return {since, from}
