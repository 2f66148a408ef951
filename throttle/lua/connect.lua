-- Counts one attempt to connect and takes one open connection, or neither.
--
-- ARGV: LEASE STREAM LAPSE; counters; windows; open connections (see lib.lua)
-- Returns: 1 or 0, 0, time after which to ask again (0: when one is given
--       back), now

local lease, stream, lapse = take(), take(), num()
local cs = counters()
local n, retry = room(cs, 1)
local mayOpen = openings()
if n == 1 and mayOpen(stream) then
  redis.call('ZADD', open, int(now + lapse), lease)
  for _, c in ipairs(cs) do
    if c.charge then
      count(c, 1)
    end
  end
else
  n = 0
end
save()
return {n, 0, retry, now}
