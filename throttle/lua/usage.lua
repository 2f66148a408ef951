-- Reads counters and leases.
--
-- ARGV: counters (see lib.lua)
-- Returns: {the sum of each counter}, {LEASE, time left, …}

local cs, used, leases = counters(), {}, {}
for i, c in ipairs(cs) do
  used[i] = c.used
end
local held = redis.call('ZRANGEBYSCORE', open, '(' .. int(now), '+inf', 'WITHSCORES')
for i = 1, #held, 2 do
  leases[i] = held[i]
  leases[i + 1] = int(tonumber(held[i + 1]) - now)
end
save()
return {used, leases}
