-- Notes that the turn of a probed recipient has come, if the claim still stands.
-- KEYS 1 claims 2 deaths
-- ARGV 1 block 2 'epoch nonce' 3 the deaths to store
-- Returns 1, or 0 when the claim is no longer held.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
