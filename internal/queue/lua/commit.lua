-- Turns a staged campaign into an open one, once, and only if all of it is there:
-- another producer of the same send may have given up and removed what both stored.
-- KEYS 1 meta 2.. every block
-- ARGV 1 digest 2.. field, value, ...
-- Returns 1 if this call did it, 0 if it was open already, -1 if some of it is gone,
-- -2 if another producer under the same key has begun with other content.
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return -1 end
if redis.call('HGET', KEYS[1], 'digest') ~= ARGV[1] then return -2 end
if state ~= 'staging' then return 0 end
for i = 2, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then return -1 end
end
redis.call('HSET', KEYS[1], 'state', 'open', unpack(ARGV, 2))
return 1
