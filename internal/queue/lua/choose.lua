-- Chooses the blocks whose jobs are enqueued next, so that few are pending at any time.
-- Take-overs and retries that are due come first, then campaigns in turn.
-- KEYS 1 ready 2 ring 3 next 4 total 5 queued 6 held 7 later 8 seq
-- ARGV 1 most jobs that may be pending at once
-- Returns {block, seq, block, seq, ...}. Nothing while the whole stream is held.
local ready, ring, next, total, queued, held, later, seq = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}

for _, c in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', now)) do
  redis.call('ZREM', later, c)
  redis.call('RPUSH', ring, c)
end

if redis.call('HEXISTS', held, '*') == 1 then return out end
local room = tonumber(ARGV[1]) - redis.call('HLEN', queued)

local paused = {}
local function is_paused(campaign)
  if paused[campaign] == nil then
    local h = redis.call('HGET', held, campaign)
    paused[campaign] = h and string.find(h, '"state":"cancelled"', 1, true) == nil or false
  end
  return paused[campaign]
end

local function take(block)
  local s = redis.call('INCR', seq)
  redis.call('HSET', queued, block, s .. ' ' .. now)
  out[#out + 1] = block
  out[#out + 1] = tostring(s)
  room = room - 1
end

-- Blocks of a paused campaign are put a second off, so that they do not hide others.
while room > 0 do
  local due = redis.call('ZRANGEBYSCORE', ready, '-inf', now, 'LIMIT', 0, 100)
  if #due == 0 then break end
  for _, block in ipairs(due) do
    if is_paused(string.match(block, '^(.-)/')) then
      redis.call('ZADD', ready, now + 1000, block)
    elseif room > 0 then
      redis.call('ZREM', ready, block)
      take(block)
    else
      break
    end
  end
end

local idle = 0
while room > 0 and idle < redis.call('LLEN', ring) do
  local c = redis.call('LPOP', ring)
  local n, m = tonumber(redis.call('HGET', next, c) or '0'), tonumber(redis.call('HGET', total, c) or '0')
  if n >= m then
    -- all its blocks have been given out: it leaves the ring
  elseif is_paused(c) then
    redis.call('RPUSH', ring, c)
    idle = idle + 1
  else
    redis.call('HSET', next, c, n + 1)
    take(c .. '/' .. n)
    redis.call('RPUSH', ring, c)
    idle = 0
  end
end
return out
