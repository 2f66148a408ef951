-- Makes one member the stream's reconciler for a while. The end of that while is
-- compared with the clock, because not every Redis lets keys expire.
-- KEYS 1 leader
-- ARGV 1 how long (ms)
-- Returns 1, or 0 while somebody else's turn lasts.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local till = tonumber(redis.call('GET', KEYS[1]) or '0')
-- A turn that ends later than any turn can was given by a clock that has been set back.
if till > now and till <= now + tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], string.format('%.0f', now + tonumber(ARGV[1])))
return 1
