-- Begins to store a campaign, or goes on where a producer died.
-- KEYS 1 meta 2 program
-- ARGV 1 program 2.. field, value, ... (with 'created')
-- Returns the time of creation that stands (a repeat keeps the first), or '' if
-- the campaign is open already.
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'open' then return '' end
local created = redis.call('HGET', KEYS[1], 'created')
redis.call('HSET', KEYS[1], 'state', 'staging', unpack(ARGV, 2))
if created then redis.call('HSET', KEYS[1], 'created', created) end
redis.call('SET', KEYS[2], ARGV[1])
return redis.call('HGET', KEYS[1], 'created')
