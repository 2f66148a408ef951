-- Puts a campaign with blocks that were not given out back into its turn, if it waits
-- in no other place.
-- KEYS 1 ring 2 next 3 total 4 later 5 parked
-- ARGV 1 campaign
-- Returns 1 if it was missing, else 0.
local n, m = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0'), tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
if n >= m or redis.call('ZSCORE', KEYS[4], ARGV[1]) or redis.call('ZSCORE', KEYS[5], ARGV[1] .. '/') then return 0 end
local there = redis.call('LREM', KEYS[1], 0, ARGV[1])
redis.call('RPUSH', KEYS[1], ARGV[1])
return there == 0 and 1 or 0
