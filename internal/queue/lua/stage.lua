-- Begins to store a campaign, or goes on where a producer died.
-- KEYS 1 meta 2 program
-- ARGV 1 program 2.. field, value, ... (with 'created')
-- Returns the time of creation that stands (a repeat keeps the first), '' if the
-- campaign is open already, or 'gone' while one of the same key is being removed.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'open' then return '' end
if state == 'gone' then return 'gone' end
local created = redis.call('HGET', KEYS[1], 'created')
local t = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'staging', 'begun', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)), unpack(ARGV, 2))
if created then redis.call('HSET', KEYS[1], 'created', created) end
redis.call('SET', KEYS[2], ARGV[1])
return redis.call('HGET', KEYS[1], 'created')
