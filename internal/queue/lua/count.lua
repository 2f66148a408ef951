-- Adds to a total of a campaign, unless that is gone.
-- KEYS 1 meta 2 totals
-- ARGV 1 field 2 how many
-- Returns 1, or 0 if there is no such campaign.
if redis.call('HGET', KEYS[1], 'state') ~= 'open' then return 0 end
redis.call('HINCRBY', KEYS[2], ARGV[1], ARGV[2])
return 1
