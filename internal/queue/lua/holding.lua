-- What the scripts that write holds share; it stands before each of them.
-- The hash of holds has a field for each hold, and '#' for their version. A member
-- reads all of them when the version is another than the one it knows.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- stands reports whether a hold, as it is stored, holds now.
local function stands(stored)
  if not stored then return false end
  local ends = cjson.decode(stored)['until']
  return not ends or ends > now
end

-- raise gives the holds a new version. It is never less than the time in microseconds,
-- so that what a restarted Redis has lost is recognised as newer by those who saw it.
local function raise(held)
  local v = math.max(tonumber(redis.call('HGET', held, '#') or '0') + 1, clock[1] * 1000000 + clock[2])
  local version = string.format('%.0f', v)
  redis.call('HSET', held, '#', version)
  return version
end

-- begin writes a hold that begins now. One that lifts itself does so after period (ms;
-- 0 = never), and after twice as long as the one before where that is not a day past.
local function begin(held, field, hold, period, most)
  hold.since = now
  if period > 0 then
    local old = redis.call('HGET', held, field)
    old = old and cjson.decode(old) or {}
    local span = period
    if old['until'] and old['until'] > now - 86400000 then span = 2 * (old['until'] - old.since) end
    hold['until'] = now + math.max(math.min(span, most), period)
  end
  local stored = cjson.encode(hold)
  redis.call('HSET', held, field, stored)
  return raise(held), stored
end
