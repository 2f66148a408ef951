-- What every script of the budget starts with. All times are microseconds.
--
-- KEYS[1]  hash: clock, skew, t:PER (next free slot of a window kept by slots;
--          t:PER:x:STREAM and t:PER:g:GROUP of limits of their own), u:NAME (sum
--          of a counter's buckets), f:DOMAIN (when its warm-up began), p:RIGHT
--          (see messages.lua), breakers (see dials.lua), dialled and r (see
--          run.lua), and what was learned:
--          k:rate and k:rate:GROUP (least time between messages; t:k and
--          t:k:GROUP hold the last slot), k:open (most connections)
-- KEYS[2]  sorted set: leases of open connections, STREAM:OWNER:NUMBER by lapse
-- KEYS[3…] lists: one a counter, in the order in which ARGV names them; oldest
--          bucket first, each "INDEX:COUNT"
-- ARGV is read from left to right; the head of each script says what it holds.

local state, open = KEYS[1], KEYS[2]
local arg = 0

local function take()
  arg = arg + 1
  return ARGV[arg]
end

local function num()
  return tonumber(take())
end

local function int(x)
  return string.format('%.0f', x)
end

-- The account's time: Redis's, never running backwards. A clock that was set
-- back, or a replica whose clock is behind, is moved on from the last time seen.
local t = redis.call('TIME')
local seen = redis.call('HMGET', state, 'clock', 'skew')
local skew = tonumber(seen[2] or '') or 0
local now = tonumber(t[1]) * 1000000 + tonumber(t[2]) + skew
local last = tonumber(seen[1] or '') or 0
if last > now then
  skew = skew + last - now
  now = last
end

local changed = {'clock', int(now), 'skew', int(skew)}

local function change(field, x)
  changed[#changed + 1] = field
  changed[#changed + 1] = int(x)
end

local function save()
  redis.call('HSET', state, unpack(changed))
end

local function bucket(s)
  local index, n = string.match(s, '^(%d+):(%d+)$')
  return tonumber(index), tonumber(n)
end

-- Reads the counters: COUNT, then NAME GRAIN SPAN CHARGE each. Buckets whose
-- end has left the span are dropped.
local function counters()
  local cs = {}
  for i = 1, num() do
    local c = {name = take(), grain = num(), span = num(), charge = take() == '1', list = KEYS[2 + i], frees = 0}
    c.used = tonumber(redis.call('HGET', state, 'u:' .. c.name) or '') or 0
    local before = c.used
    local head = redis.call('LINDEX', c.list, 0)
    while head do
      local index, n = bucket(head)
      c.frees = (index + 1) * c.grain + c.span - now
      if c.frees > 0 then
        break
      end
      redis.call('LPOP', c.list)
      c.used = c.used - n
      head = redis.call('LINDEX', c.list, 0)
    end
    if c.used ~= before then
      change('u:' .. c.name, c.used)
    end
    cs[i] = c
  end
  return cs
end

local function count(c, n, at) -- at: not before the newest bucket; nil: now
  local index = math.floor((at or now) / c.grain)
  local tail = redis.call('LINDEX', c.list, -1)
  local at, had
  if tail then
    at, had = bucket(tail)
  end
  if at == index then
    redis.call('LSET', c.list, -1, int(index) .. ':' .. int(had + n))
  else
    redis.call('RPUSH', c.list, int(index) .. ':' .. int(n))
  end
  c.used = c.used + n
  change('u:' .. c.name, c.used)
end

-- Takes up to n off the bucket that counted the time at, if it is among the
-- newest; otherwise they stay counted.
local function uncount(c, at, n)
  local index = math.floor(at / c.grain)
  for place = -1, -4, -1 do
    local b = redis.call('LINDEX', c.list, place)
    if not b then
      return
    end
    local i, had = bucket(b)
    if i == index then
      n = math.min(n, had)
      redis.call('LSET', c.list, place, int(index) .. ':' .. int(had - n))
      c.used = c.used - n
      change('u:' .. c.name, c.used)
      return
    end
  end
end

-- Reads pairs COUNTER N (a reserve): COUNT, then the pairs; returns them.
local function reserves(cs)
  local rs = {}
  for i = 1, num() do
    rs[i] = {c = cs[num()], n = num()}
  end
  return rs
end

-- Reads the windows that must have room: COUNT, then COUNTER N and the other
-- streams' reserves each. Returns how many fit, at most n, and the time after
-- which it is worth asking again if none does.
local function room(cs, n)
  local retry = 0
  for _ = 1, num() do
    local c, left = cs[num()], num()
    for _, r in ipairs(reserves(cs)) do
      left = left - math.max(0, r.n - r.c.used)
    end
    left = left - c.used
    if left < 1 then
      retry = math.max(retry, c.frees)
    end
    n = math.min(n, math.max(0, left))
  end
  return n, retry
end

-- Drops the leases that have lapsed and returns the others.
local function leases()
  redis.call('ZREMRANGEBYSCORE', open, '-inf', int(now))
  return redis.call('ZRANGE', open, 0, -1)
end

-- Reads OPEN, 1 if a learned limit binds the asker, COUNT and STREAM N each
-- (connections kept for streams); returns a function that says whether a stream
-- may have one more. Where a learned limit holds, what is kept shrinks so that it
-- leaves one for the other streams.
local function openings(learned)
  local most = num()
  learned = take() == '1' and learned
  local shares, kept = {}, 0
  for i = 1, num() do
    shares[i] = {stream = take(), n = num()}
    kept = kept + shares[i].n
  end
  local cap = learned and tonumber(redis.call('HGET', state, 'k:open') or '')
  if cap and cap > 0 then
    most = math.min(most, math.max(1, math.floor(cap)))
    if kept >= most then
      for _, s in ipairs(shares) do
        s.n = math.floor(s.n * (most - 1) / kept)
      end
    end
  end
  local held, total = {}, 0
  for _, lease in ipairs(leases()) do
    local s = string.match(lease, '^([^:]*):')
    held[s] = (held[s] or 0) + 1
    total = total + 1
  end
  return function(stream)
    local left = most - total
    for _, s in ipairs(shares) do
      if s.stream ~= stream then
        left = left - math.max(0, s.n - (held[s.stream] or 0))
      end
    end
    if left < 1 then
      return false
    end
    held[stream] = (held[stream] or 0) + 1
    total = total + 1
    return true
  end
end
