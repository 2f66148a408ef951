-- Makes a stored campaign's blocks available. Repeating it changes nothing.
-- KEYS 1 ring 2 next 3 total 4 later 5 opening 6 canary
-- ARGV 1 campaign 2 number of blocks 3 start (ms since the epoch, 0 = now)
--      4 the canary: 'recipients blocks wait(ms)', '' = none
-- Returns 1 if it was opened by this call, else 0.
redis.call('SREM', KEYS[5], ARGV[1])
if redis.call('HSETNX', KEYS[3], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], 0)
if ARGV[4] ~= '' then redis.call('HSET', KEYS[6], ARGV[1], ARGV[4]) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if tonumber(ARGV[3]) > now then
  redis.call('ZADD', KEYS[4], ARGV[3], ARGV[1])
else
  redis.call('RPUSH', KEYS[1], ARGV[1])
end
return 1
