-- Gives a member a new record key and removes the old one, after a write whose
-- answer was lost: should Redis still carry that write out, it finds no key to
-- overwrite. With ARGV 3 = 1 it also makes a record that a restarted Redis lost.
-- KEYS 1 gens 2 dead record 3 new record
-- ARGV 1 nonce 2 new generation 3 '1' to make it if missing 4 the record's content
--      5 what the record keys begin with, to remove the old one (same slot)
-- Returns 1, or 0 when the member was declared dead.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local gen = redis.call('HGET', KEYS[1], ARGV[1])
if gen then
  redis.call('DEL', ARGV[5] .. gen)
elseif ARGV[3] ~= '1' then
  return 0
end
redis.call('SET', KEYS[3], ARGV[4])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
