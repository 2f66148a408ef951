-- Puts off the lapse of leases. One that is not known (any more) is taken again
-- if there is room.
--
-- ARGV: LAPSE; open connections (see lib.lua); COUNT of leases, then LEASE each
-- Returns: 1 or 0 for each lease

local lapse = num()
local mayOpen = openings()
local held = {}
for i = 1, num() do
  local lease = take()
  if redis.call('ZSCORE', open, lease) or mayOpen(string.match(lease, '^([^:]*):')) then
    redis.call('ZADD', open, int(now + lapse), lease)
    held[i] = 1
  else
    held[i] = 0
  end
end
save()
return held
