-- Turns a staged campaign into an open one, once.
-- KEYS 1 meta
-- ARGV field, value, ...
-- Returns 1 if this call did it, 0 if it was open already, -1 if there is none.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return -1 end
if state ~= 'staging' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'open', unpack(ARGV))
return 1
