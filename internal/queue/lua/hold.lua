-- Writes or lifts a hold, but never over a cancelled campaign's.
-- KEYS 1 held
-- ARGV 1 campaign or '*' 2 the hold as JSON, '' to lift
-- Returns 1, or 0 when the campaign is cancelled.
local h = redis.call('HGET', KEYS[1], ARGV[1])
if h and string.find(h, '"state":"cancelled"', 1, true) then return 0 end
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
