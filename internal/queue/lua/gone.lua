-- Marks a campaign whose retention is over as gone, if nothing happened to it since that
-- was found.
-- KEYS 1 meta 2 totals
-- ARGV 1 the state it was found in 2 when its storing was begun last 3 when a block of it
--      was settled last ('' = never)
-- Returns 1, or 0 when it stays.
if redis.call('HGET', KEYS[1], 'state') ~= ARGV[1] then return 0 end
if (redis.call('HGET', KEYS[1], 'begun') or '') ~= ARGV[2] then return 0 end
if (redis.call('HGET', KEYS[2], 'updated') or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], 'state', 'gone')
return 1
