-- Says where a block stands in its stream's schedule.
-- KEYS 1 claims 2 queued 3 ready 4 parked 5 next 6 total
-- ARGV 1 block 2 campaign 3 its number
-- Returns 'claimed', 'queued', 'ready', 'parked', 'ahead' (not given out yet), 'given'
-- (and in none of these places), or 'none' when the campaign is not in the schedule.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'claimed' end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 'queued' end
if redis.call('ZSCORE', KEYS[3], ARGV[1]) then return 'ready' end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 'parked' end
if redis.call('HEXISTS', KEYS[6], ARGV[2]) == 0 then return 'none' end
if tonumber(ARGV[3]) >= tonumber(redis.call('HGET', KEYS[5], ARGV[2]) or '0') then return 'ahead' end
return 'given'
