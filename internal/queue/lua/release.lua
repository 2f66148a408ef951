-- Gives a claim up. Only the claim itself can do it.
-- KEYS 1 claims 2 ready
-- ARGV 1 block 2 'epoch nonce' 3 due (ms since the epoch) or '' when nobody in it is due again
-- Returns 1, or 0 when the claim is no longer held.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1]) end
return 1
