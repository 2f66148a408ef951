-- The breaker of one login, which streams may share, for the scripts that dial.
-- After lib.lua.
--
-- KEYS[1]  a:STREAM  the LOGIN it uses; without it, one of its own, named as it is
--          b:LOGIN   "SINCE LAST NEXT EARLY FAILS AT" while it is not closed:
--                    when it opened; the refusal that counted last; no dial
--                    before NEXT, or before EARLY if fewer than AT connections
--                    are open; refusals in a row; connections open at the last
--          w:LOGIN   why
--          d:STREAM  dials not greeted yet, "LEASE START LAPSE" each
--          l:LOGIN:CREDENTIALS  those that were refused, by fingerprint: "SINCE WHY"

local function set(field, text) -- at once, as it may be read again
  redis.call('HSET', state, field, text)
end

local logins = {} -- by stream, as far as they were looked up

local function loginOf(stream)
  logins[stream] = logins[stream] or redis.call('HGET', state, 'a:' .. stream) or stream
  return logins[stream]
end

-- Keeps for the scripts that are told of a lease alone, and for show, which login a
-- stream uses.
local function logsInAs(stream, login)
  if loginOf(stream) ~= login then
    set('a:' .. stream, login)
    logins[stream] = login
  end
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

-- The login's breaker, or nil when it is closed.
local function breaker(login)
  local since, last, next, early, fails, at =
    string.match(redis.call('HGET', state, 'b:' .. login) or '', '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  if not since then
    return nil
  end
  return {since = tonumber(since), last = tonumber(last), next = tonumber(next), early = tonumber(early),
    fails = tonumber(fails), at = tonumber(at)}
end

-- The dials under way of every stream that uses the login, and how many
-- connections each stream has, dials among them.
local function underWay(login)
  local all, held = {}, {}
  for _, lease in ipairs(leases()) do
    local stream = string.match(lease, '^([^:]*):')
    if not held[stream] and loginOf(stream) == login then
      for _, d in ipairs((dials(stream, ''))) do
        all[#all + 1] = d
      end
    end
    held[stream] = (held[stream] or 0) + 1
  end
  return all, held
end

-- How many connections of the login are open, without those not greeted yet and
-- the lease named.
local function greeted(login, lease)
  local n = 0
  local dialling = {[lease] = true}
  for _, d in ipairs((underWay(login))) do
    dialling[d.lease] = true
  end
  for _, name in ipairs(leases()) do
    if loginOf(string.match(name, '^([^:]*):')) == login and not dialling[name] then
      n = n + 1
    end
  end
  return n
end

-- Whether a dial is left for another stream of the login: one that does not have
-- the connections yet that are kept for it.
local function spoken(stream, kept, held)
  local function wants(s)
    return (held[s] or 0) < (kept[s] or 0)
  end
  if wants(stream) then
    return false
  end
  for s in pairs(kept) do
    if wants(s) then
      return true
    end
  end
  return false
end

-- Whether one more dial of the stream may begin; if not, the time after which that
-- may change (0: not known). kept are connections by stream of the login.
local function gate(stream, most, kept)
  local login = loginOf(stream)
  local list, held = underWay(login)
  if #list >= most or #list == most - 1 and spoken(stream, kept, held) then
    return false, 0
  end
  local b = breaker(login)
  if not b then
    return true, 0
  end
  for _, d in ipairs(list) do
    if d.start >= b.last then
      return false, 0 -- the probe is under way
    end
  end
  local at = b.next
  if greeted(login, '') < b.at then
    at = math.min(at, b.early)
  end
  return now >= at, math.max(0, at - now)
end
