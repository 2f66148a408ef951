-- Declares a member dead: its record is renamed, so that nothing it writes later
-- is confirmed. Who finds it buried already may go on with the work. A member whose
-- record was lost is buried all the same, and cannot make it anew.
-- KEYS 1 gens 2 beats 3 record (of the generation read before) 4 dead record
-- ARGV 1 nonce 2 that generation 3 the heartbeat counter it was judged by ('' = none)
-- Returns {1, the record's content ('' if there is none)}, or {0} if the member has
-- written or beaten meanwhile and so is alive.
local gen = redis.call('HGET', KEYS[1], ARGV[1])
if gen and (gen ~= ARGV[2] or (redis.call('HGET', KEYS[2], ARGV[1]) or '') ~= ARGV[3]) then return {0} end
if gen and redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[4]) end
redis.call('SET', KEYS[4], '', 'NX')
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return {1, redis.call('GET', KEYS[4])}
