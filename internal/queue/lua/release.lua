-- Gives a claim up. Only the claim itself can do it. A block that evidence came for
-- meanwhile, or whose campaign was cancelled, is due at once.
-- Its holder has outlived it, so the deaths of those before are forgotten, but for who
-- is being probed.
-- KEYS 1 claims 2 ready 3 touched 4 held 5 deaths
-- ARGV 1 block 2 'epoch nonce' 3 due (ms since the epoch) or '' when nobody in it is due again
--      4 campaign
-- Returns 1, or 0 when the claim is no longer held.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
local due = ARGV[3]
local h = redis.call('HGET', KEYS[4], ARGV[4])
if due ~= '' and h and string.find(h, '"state":"cancelled"', 1, true) then due = '0' end
if redis.call('SREM', KEYS[3], ARGV[1]) == 1 then due = '0' end
if due ~= '' then redis.call('ZADD', KEYS[2], due, ARGV[1]) end
if due == '' or string.find(redis.call('HGET', KEYS[5], ARGV[1]) or '', '^died') then redis.call('HDEL', KEYS[5], ARGV[1]) end
return 1
