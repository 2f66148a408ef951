-- Chooses the blocks whose jobs are enqueued next, so that few are pending at any time.
-- Take-overs and retries that are due come first, then campaigns in turn. What may not
-- be sent now is put aside, so that it is looked at once and not at every call:
-- unpark.lua and pass.lua bring it back.
-- KEYS 1 ready 2 ring 3 next 4 total 5 queued 6 held 7 later 8 seq 9 parked 10 canary
-- ARGV 1 most jobs that may be pending at once 2 the caller's login ('' = not told)
-- Returns {block, seq, block, seq, ...}. Nothing while the stream or the login is held.
local ready, ring, next, total, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local held, later, seq, parked, canary = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}

for _, c in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now)) do
  redis.call('ZREM', later, c)
  redis.call('RPUSH', ring, c)
end

if redis.call('HEXISTS', held, '*') == 1 then return out end
if ARGV[2] ~= '' and redis.call('HEXISTS', held, '*' .. ARGV[2]) == 1 then return out end
local room = tonumber(ARGV[1]) - redis.call('HLEN', queued)

local paused = {}
local function is_paused(campaign)
  if paused[campaign] == nil then
    local h = redis.call('HGET', held, campaign)
    paused[campaign] = h and string.find(h, '"state":"cancelled"', 1, true) == nil or false
  end
  return paused[campaign]
end

-- at_edge reports whether block n of a campaign lies beyond a canary that is not over.
-- Of a cancelled campaign it matters no more.
local function at_edge(campaign, n)
  local entry = redis.call('HGET', canary, campaign)
  return entry and n >= tonumber(string.match(entry, '^%d+ (%d+)')) and redis.call('HEXISTS', held, campaign) == 0
end

local function take(block)
  local s = redis.call('INCR', seq)
  redis.call('HSET', queued, block, s .. ' ' .. now)
  out[#out + 1] = block
  out[#out + 1] = tostring(s)
  room = room - 1
end

-- At most so many are put aside in one call, lest it be a long one.
local most = 5000
while room > 0 and most > 0 do
  local due = redis.call('ZRANGEBYSCORE', ready, '-inf', now, 'LIMIT', 0, 100)
  if #due == 0 then break end
  local gone, aside = {}, {}
  for _, block in ipairs(due) do
    if is_paused(string.match(block, '^(.-)/') or block) then
      gone[#gone + 1] = block
      aside[#aside + 1] = '0'
      aside[#aside + 1] = block
    elseif room > 0 then
      gone[#gone + 1] = block
      take(block)
    else
      break
    end
  end
  redis.call('ZREM', ready, unpack(gone))
  if #aside > 0 then redis.call('ZADD', parked, unpack(aside)) end
  most = most - #aside / 2
end

while room > 0 do
  local c = redis.call('LPOP', ring)
  if not c then break end
  local n, m = tonumber(redis.call('HGET', next, c) or '0'), tonumber(redis.call('HGET', total, c) or '0')
  if n >= m then
    -- all its blocks have been given out: it leaves the ring
  elseif is_paused(c) or at_edge(c, n) then
    redis.call('ZADD', parked, '0', c .. '/')
  else
    redis.call('HSET', next, c, n + 1)
    take(c .. '/' .. n)
    redis.call('RPUSH', ring, c)
  end
end
return out
