-- Gives what was put aside back to the schedule, of campaigns that are not paused any
-- more. Its members are CAMPAIGN/BLOCK, and CAMPAIGN/ for a campaign that left the
-- ring; all have the same score, so a campaign's stand together.
-- KEYS 1 parked 2 held 3 ready 4 ring
-- ARGV 1 a campaign, '' = all 2 how many to move at most
-- Returns how many were moved.
local parked, held, ready, ring = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local left = tonumber(ARGV[2])
local moved = 0

local function goes_on(c)
  local h = redis.call('HGET', held, c)
  return not h or string.find(h, '"state":"cancelled"', 1, true) ~= nil
end

local from = ARGV[1] == '' and '-' or '[' .. ARGV[1] .. '/'
while moved < left do
  local first = redis.call('ZRANGEBYLEX', parked, from, '+', 'LIMIT', 0, 1)[1]
  local c = first and string.match(first, '^(.-)/')
  if not c or (ARGV[1] ~= '' and c ~= ARGV[1]) then break end
  from = '[' .. c .. '0' -- '0' comes after '/'
  if goes_on(c) then
    for _, entry in ipairs(redis.call('ZRANGEBYLEX', parked, '[' .. c .. '/', '(' .. c .. '0', 'LIMIT', 0, left - moved)) do
      redis.call('ZREM', parked, entry)
      if entry == c .. '/' then
        redis.call('RPUSH', ring, c) -- choose.lua puts it aside again if its canary is out
      else
        redis.call('ZADD', ready, now, entry)
      end
      moved = moved + 1
    end
  end
end
return moved
