-- One heartbeat of a member: its counter rises, unless its record was taken away.
-- KEYS 1 beats 2 gens
-- ARGV 1 nonce
-- Returns the counter, or -1 when the member was declared dead.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then return -1 end
return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
