-- Lifts a hold, but never a cancellation. The results that led to it are forgotten.
-- KEYS 1 held 2 the results of what is held
-- ARGV 1 field; '*' lifts the stream's own hold and those of all its logins
--      2 '1' to do it only where the hold does not stand any more
-- Returns 1, or 0 when the campaign is cancelled.
local held, field = KEYS[1], ARGV[1]
local old = redis.call('HGET', held, field)
if old and string.find(old, '"state":"cancelled"', 1, true) then return 0 end
if ARGV[2] == '1' and stands(old) then return 1 end
redis.call('DEL', KEYS[2])
local gone = redis.call('HDEL', held, field)
if field == '*' then
  local all = redis.call('HGETALL', held)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 1) == '*' then gone = gone + redis.call('HDEL', held, all[i]) end
  end
end
if gone > 0 then raise(held) end
return 1
