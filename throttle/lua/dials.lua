-- The breaker of one stream's login, for the scripts that dial. After lib.lua.
--
-- KEYS[1]  b:STREAM  "SINCE LAST NEXT EARLY FAILS AT" while it is not closed:
--                    when it opened; the refusal that counted last; no dial
--                    before NEXT, or before EARLY if fewer than AT connections
--                    are open; refusals in a row; connections open at the last
--          w:STREAM  why
--          d:STREAM  dials not greeted yet, "LEASE START LAPSE" each
--          l:STREAM:LOGIN  credentials that were refused: "SINCE WHY"

local function set(field, text) -- at once, as it may be read again
  redis.call('HSET', state, field, text)
end

-- The stream's dials that have not lapsed, but for the lease named, which is
-- returned beside them.
local function dials(stream, lease)
  local list, mine = {}, nil
  for name, start, lapse in string.gmatch(redis.call('HGET', state, 'd:' .. stream) or '', '(%S+) (%d+) (%d+)') do
    local d = {lease = name, start = tonumber(start), lapse = tonumber(lapse)}
    if d.lapse > now then
      if name == lease then
        mine = d
      else
        list[#list + 1] = d
      end
    end
  end
  return list, mine
end

local function keep(stream, list)
  if #list == 0 then
    redis.call('HDEL', state, 'd:' .. stream)
    return
  end
  local parts = {}
  for i, d in ipairs(list) do
    parts[i] = d.lease .. ' ' .. int(d.start) .. ' ' .. int(d.lapse)
  end
  set('d:' .. stream, table.concat(parts, ' '))
end

-- Takes a lease off its stream's dials, if it is one.
local function forget(lease)
  local stream = string.match(lease, '^([^:]*):')
  if redis.call('HEXISTS', state, 'd:' .. stream) == 1 then
    local list = dials(stream, lease)
    keep(stream, list)
  end
end

-- The stream's breaker, or nil when it is closed.
local function breaker(stream)
  local since, last, next, early, fails, at =
    string.match(redis.call('HGET', state, 'b:' .. stream) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not since then
    return nil
  end
  return {since = tonumber(since), last = tonumber(last), next = tonumber(next), early = tonumber(early),
    fails = tonumber(fails), at = tonumber(at)}
end

-- How many connections of the stream are open, without those not greeted yet
-- and the lease named.
local function greeted(stream, list, lease)
  local n = 0
  local dialling = {[lease] = true}
  for _, d in ipairs(list) do
    dialling[d.lease] = true
  end
  for _, name in ipairs(leases()) do
    if string.match(name, '^([^:]*):') == stream and not dialling[name] then
      n = n + 1
    end
  end
  return n
end

-- Whether one more dial may begin; if not, the time after which that may change
-- (0: not known). The last result are the dials under way.
local function gate(stream, login, most)
  if redis.call('HEXISTS', state, 'l:' .. stream .. ':' .. login) == 1 then
    return false, 1000000, {} -- until Reset, or other credentials: no hurry
  end
  local list = dials(stream, '')
  if #list >= most then
    return false, 0, list
  end
  local b = breaker(stream)
  if not b then
    return true, 0, list
  end
  for _, d in ipairs(list) do
    if d.start >= b.last then
      return false, 0, list -- the probe is under way
    end
  end
  local at = b.next
  if greeted(stream, list, '') < b.at then
    at = math.min(at, b.early)
  end
  return now >= at, math.max(0, at - now), list
end
