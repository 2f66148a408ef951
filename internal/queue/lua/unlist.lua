-- Takes a campaign that is gone off the list of all, unless it was stored anew since.
-- KEYS 1 campaigns
-- ARGV 1 campaign 2 its score as it was read
-- Returns 1, or 0 if it stays.
if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '-1') ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
