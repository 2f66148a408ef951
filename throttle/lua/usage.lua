-- Reads counters, leases and what is known of dials and warm-ups.
--
-- ARGV: counters (see lib.lua)
-- Returns: {the sum of each counter}, {LEASE, time left, …}, {FIELD, VALUE, …} of
--       the state that names streams and senders, now

local cs, used, held, fields = counters(), {}, {}, {}
for i, c in ipairs(cs) do
  used[i] = c.used
end
local all = redis.call('ZRANGEBYSCORE', open, '(' .. int(now), '+inf', 'WITHSCORES')
for i = 1, #all, 2 do
  held[i] = all[i]
  held[i + 1] = int(tonumber(all[i + 1]) - now)
end
save()
all = redis.call('HGETALL', state)
for i = 1, #all, 2 do
  if string.match(all[i], '^[abwldf]:') then
    fields[#fields + 1] = all[i]
    fields[#fields + 1] = all[i + 1]
  end
end
return {used, held, fields, int(now)}
