-- Writes the holds again that a member saw, where a restarted Redis has lost them:
-- who saw the highest version knows what was lifted, too.
-- KEYS 1 held
-- ARGV 1 version 2.. field, hold as JSON, ...
-- Returns 1 if they were written, 0 if Redis has them, or newer ones.
if tonumber(redis.call('HGET', KEYS[1], '#') or '0') >= tonumber(ARGV[1]) then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], '#', ARGV[1])
for i = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
